"""`python -m monolith_tf` is `monolith-tf`."""

from monolith_tf.cli import main

if __name__ == "__main__":
    main.run()
