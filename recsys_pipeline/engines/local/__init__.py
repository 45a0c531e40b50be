"""This machine: ALS by `implicit` or by the batched solver, fits side by side in processes."""
