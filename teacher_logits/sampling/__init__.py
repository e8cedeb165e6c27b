"""Nucleus, Gumbel-max sample of the rest, and log-sum-exps of next-token distributions, in float64."""

from teacher_logits.sampling.sample import SamplingSettings, sample

__all__ = ["SamplingSettings", "sample"]
