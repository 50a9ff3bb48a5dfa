"""The conformance rules of methods: what goes wrong in published suites is looked for in every file.

Each rule trains a method for a few steps (`tiny.py`) and raises `Broken` if it is broken.
"""

from kfbench.conformance.loss import losses_are_finite_means, soft_targets_keep_their_size, waits_for_no_gpu
from kfbench.conformance.memory import (
    acts_from_its_state_alone,
    evaluation_leaves_no_trace,
    export_stands_alone,
    resumes_to_the_bit,
)
from kfbench.conformance.tiny import Rule
from kfbench.conformance.weights import (
    only_named_parameters_move,
    starts_from_the_plain_network,
    student_trains_in_training_mode,
    teachers_stay_frozen,
)
from kfbench.kinds import Kind

RULES: tuple[Rule, ...] = (
    teachers_stay_frozen,
    only_named_parameters_move,
    student_trains_in_training_mode,
    losses_are_finite_means,
    starts_from_the_plain_network,
    resumes_to_the_bit,
    export_stands_alone,
    evaluation_leaves_no_trace,
    soft_targets_keep_their_size,
    waits_for_no_gpu,
)
ACTING_RULES: tuple[Rule, ...] = (  # acting, which is half of a game's loop, leaves the student in evaluation mode
    teachers_stay_frozen,
    only_named_parameters_move,
    losses_are_finite_means,
    starts_from_the_plain_network,
    acts_from_its_state_alone,
    resumes_to_the_bit,
    export_stands_alone,
    waits_for_no_gpu,
)


def rules_for(kind: Kind) -> tuple[Rule, ...]:
    """Return the rules that methods keep on tasks of a kind."""
    return ACTING_RULES if kind.acts else RULES
