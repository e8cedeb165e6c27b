"""Look into a logits dataset.

In a notebook:

    from explore_logits import *
    dataset = quick_explore("./logits")
    visualize_conversation_probabilities(dataset, 1)

In a terminal: python explore_logits.py ./logits [show 0 | html 0 | stats | plots -o FOLDER | report | verify |
compare --model M]
"""

if __name__ == "__main__":
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of imports

from teacher_logits.exploring.notebook import *  # noqa: F403
from teacher_logits.exploring.notebook import __all__ as __all__

if __name__ == "__main__":
    from teacher_logits.command_line.explore import run

    run()
