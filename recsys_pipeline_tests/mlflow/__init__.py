"""Handing releases over to MLflow: `make mlflow` installs what these need."""
