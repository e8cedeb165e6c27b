"""The whole way from a chat dataset to a logits dataset.

Nothing is imported here: `stop` must be loadable before torch is, so that an early Ctrl+C finds its handler.
"""
