"""What Mixdesk computes, compared with transformers and peft over many kinds of models, adapters and rewards.

    python -m tests.compatibility

measures every row and writes docs/compatibility.md. pytest measures a few of them (test_sample.py).
"""
