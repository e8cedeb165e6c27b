"""Whether a logits dataset is sound.

dataset    all of it: what the others find, joined     run        checkpoint.json
shard      one file: hash, schema, metadata, counts    structure  lengths that belong together, row by row
values     the numbers, entry by entry                 missing    the source's conversations that are not there
problems   lines for a person
"""

from teacher_logits.exploring.verifying.dataset import Verification, verification_text, verify_dataset

__all__ = ["Verification", "verification_text", "verify_dataset"]
