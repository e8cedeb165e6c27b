"""Sort a chat dataset by token length: `python compute_lengths.py --model M --dataset D --output O`."""

if __name__ == "__main__":
    from teacher_logits.command_line.lengths import run

    run()
