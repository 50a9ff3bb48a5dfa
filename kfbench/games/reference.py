"""Human-normalised Atari scores: (return - random) / (human - random), with two reference tables that never mix.

Source: Wang et al. 2016 (arXiv 1511.06581), tables 2 (up to 30 no-ops, the start kfbench evaluates with) and 3 (human
starts). Air Raid, Carnival and every game outside the 57 have no reference.
"""

from typing import Literal

Starts = Literal["no-op", "human"]

# game, random and human with no-op starts, random and human with human starts
TABLE = """
alien                 227.8   7127.7    128.3   6371.3
amidar                  5.8   1719.5     11.8   1540.4
assault               222.4    742.0    166.9    628.9
asterix               210.0   8503.3    164.5   7536.0
asteroids             719.1  47388.7    871.3  36517.3
atlantis            12850.0  29028.1  13463.0  26575.0
bank_heist             14.2    753.1     21.7    644.5
battle_zone          2360.0  37187.5   3560.0  33030.0
beam_rider            363.9  16926.5    254.6  14961.0
berzerk               123.7   2630.4    196.1   2237.5
bowling                23.1    160.7     35.2    146.5
boxing                  0.1     12.1     -1.5      9.6
breakout                1.7     30.5      1.6     27.9
centipede            2090.9  12017.0   1925.5  10321.9
chopper_command       811.0   7387.8    644.0   8930.0
crazy_climber       10780.5  35829.4   9337.0  32667.0
defender             2874.5  18688.9   1965.5  14296.0
demon_attack          152.1   1971.0    208.3   3442.8
double_dunk           -18.6    -16.4    -16.0    -14.4
enduro                  0.0    860.5    -81.8    740.2
fishing_derby         -91.7    -38.7    -77.1      5.1
freeway                 0.0     29.6      0.1     25.6
frostbite              65.2   4334.7     66.4   4202.8
gopher                257.6   2412.5    250.0   2311.0
gravitar              173.0   3351.4    245.5   3116.0
hero                 1027.0  30826.4   1580.3  25839.4
ice_hockey            -11.2      0.9     -9.7      0.5
jamesbond              29.0    302.8     33.5    368.5
kangaroo               52.0   3035.0    100.0   2739.0
krull                1598.0   2665.5   1151.9   2109.1
kung_fu_master        258.5  22736.3    304.0  20786.8
montezuma_revenge       0.0   4753.3     25.0   4182.0
ms_pacman             307.3   6951.6    197.8  15375.0
name_this_game       2292.3   8049.0   1747.8   6796.0
phoenix               761.4   7242.6   1134.4   6686.2
pitfall              -229.4   6463.7   -348.8   5998.9
pong                  -20.7     14.6    -18.0     15.5
private_eye            24.9  69571.3    662.8  64169.1
qbert                 163.9  13455.0    183.0  12085.0
riverraid            1338.5  17118.0    588.3  14382.2
road_runner            11.5   7845.0    200.0   6878.0
robotank                2.2     11.9      2.4      8.9
seaquest               68.4  42054.7    215.5  40425.8
skiing             -17098.1  -4336.9 -15287.4  -3686.6
solaris              1236.3  12326.7   2047.2  11032.6
space_invaders        148.0   1668.7    182.6   1464.9
star_gunner           664.0  10250.0    697.0   9528.0
surround              -10.0      6.5     -9.7      5.4
tennis                -23.8     -8.3    -21.4     -6.7
time_pilot           3568.0   5229.2   3273.0   5650.0
tutankham              11.4    167.6     12.7    138.3
up_n_down             533.4  11693.2    707.2   9896.1
venture                 0.0   1187.5     18.0   1039.0
video_pinball       16256.9  17667.9  20452.0  15641.1
wizard_of_wor         563.5   4756.5    804.0   4556.0
yars_revenge         3092.9  54576.9   1476.9  47135.2
zaxxon                 32.5   9173.3    475.0   8443.0
"""

REFERENCES: dict[str, dict[Starts, tuple[float, float]]] = {
    game: {"no-op": (float(a), float(b)), "human": (float(c), float(d))}
    for game, a, b, c, d in (line.split() for line in TABLE.strip().splitlines())
}


def human_normalised(game: str, score: float, starts: Starts = "no-op") -> float | None:
    """Return a score with random play at 0 and the human at 1; None where there is no reference.

    `game` is ale-py's name, as in `atari/<game>`. Video Pinball with human starts counts random play as 0, as the A3C
    paper's own figures do: the table's random score there lies above the human one.
    """
    if game not in REFERENCES:
        return None
    random, human = REFERENCES[game][starts]
    if random >= human:
        random = 0.0
    return (score - random) / (human - random)


def random_return(game: str) -> float | None:
    """Return what random play scores with no-op starts, in points; None where there is no reference."""
    return REFERENCES[game]["no-op"][0] if game in REFERENCES else None
