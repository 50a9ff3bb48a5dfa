"""What a record says of where it was made."""

import torch

from kfbench.running import provenance


def test_a_gpus_record_says_where_fp32_is_rounded_to_tf32(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert provenance.rounding(torch.device("cpu")) == {}
    for convolutions in (True, False):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", convolutions)
        told = provenance.rounding(torch.device("cuda"))["tf32"]
        assert told == {"convolutions": convolutions, "matrix_products": False}
