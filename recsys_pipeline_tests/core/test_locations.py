"""Locations without secrets, and refusals that do not repeat them."""

import pytest
from pydantic import ValidationError

from recsys_pipeline.assets.delivery import DeliveryConfig
from recsys_pipeline.assets.evaluation import EvaluationConfig
from recsys_pipeline.assets.splitting import SplitConfig
from recsys_pipeline.assets.tracking import MlflowConfig
from recsys_pipeline.core.locations import checked_database, checked_location, checked_tracker
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.warehouse import Warehouse

SECRET = "hunter2"
WITH_SECRETS = [
    f"s3://user:{SECRET}@bucket/x",
    f"memory://u:{SECRET}@h/w",
    f"simplecache::s3://user:{SECRET}@bucket/x",
    f"zip://a.csv::https://user:{SECRET}@host/x.zip",
    f"https://{SECRET}@host/x.csv",
    f"https://host/x.csv?token={SECRET}",
    f"s3://bucket/x?AWSSecretAccessKey={SECRET}&y=1",
    f"https://account.blob.core.windows.net/c/x?sv=1&sig={SECRET}",
    f"s3://AKIA:ab/{SECRET}@bucket/x",
    f"s3://user:with space{SECRET}@bucket/x",
    f"s3://{SECRET}@bucket/x",
    f"https://host/x?code={SECRET}",
    f"https://host/x?X-Amz-Signature={SECRET}",
    f"https://host/x#token={SECRET}",
    f"abfs://user:{SECRET}@account/x",
]


@pytest.mark.parametrize("location", WITH_SECRETS)
def test_a_secret_is_refused_and_not_shown(location):
    with pytest.raises(ValueError, match="holds a password or key") as refusal:
        checked_location(location)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize("location", WITH_SECRETS)
@pytest.mark.parametrize(
    "made",
    [
        lambda text: Warehouse(path=text),
        lambda text: Feedback(path=text),
        lambda text: SplitConfig(file=text),
        lambda text: EvaluationConfig(file=text),
    ],
    ids=["warehouse", "feedback", "split file", "evaluation file"],
)
def test_every_field_that_holds_a_location_refuses_it(made, location):
    with pytest.raises(ValidationError) as refusal:
        made(location)
    assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "location",
    [
        "data/feed.csv",
        "/data/a@b:c.csv",
        "s3://bucket/key=1/part?.parquet",
        "abfs://container@account.dfs.core.windows.net/folder",
        "simplecache::s3://bucket/x",
        "memory://warehouse",
        "s3://bucket/user@example/part.parquet",
        "http://localhost:9000/bucket/a@b.csv",
        "https://host/x?keyword=shoes&monkey=1&design=2",
        "s3://bucket/part?/key=1/x.parquet",
        "github://org:repo@main/x.csv",
    ],
)
def test_a_location_without_secrets_stays_as_it_is(location):
    assert checked_location(location) == location


# --- Databases ---

DATABASES_WITH_SECRETS = [
    f"postgresql://user:{SECRET}@host/shop",
    f"postgres://user:{SECRET}@host:5432/shop",
    f"postgresql://user:{SECRET}/x@host/shop",
    f"postgresql://user:{SECRET}?x@host/shop",
    f"postgresql://a,b:{SECRET}@host/shop",
    f"postgresql://host/shop?password={SECRET}",
    f"postgresql://host/shop?sslmode=require&password={SECRET}",
    f"postgresql://host/shop?p%61ssword={SECRET}",
    f"postgresql://host/shop;password={SECRET}",
    f"postgresql://host/shop#password={SECRET}",
    f"postgresql://host/shop?sslpassword={SECRET}",
    f"postgresql://host/shop?scram_client_key={SECRET}",
    f"postgresql://host/shop?oauth_client_secret={SECRET}",
]


@pytest.mark.parametrize("url", DATABASES_WITH_SECRETS)
def test_a_secret_of_a_database_is_refused_and_not_shown(url):
    with pytest.raises(ValueError, match=r"holds a password or key.*PGPASSWORD") as refusal:
        checked_database(url)
    assert SECRET not in str(refusal.value)
    with pytest.raises(ValidationError) as refusal_by_field:
        DeliveryConfig(database=url)
    assert SECRET not in str(refusal_by_field.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://host/shop",
        "postgresql:///shop",
        "postgres://host:5432/shop?sslmode=require",
        "postgresql://clerk@host/shop",
        "postgresql://clerk@[::1]:5432/shop",
        "postgresql://one:5432,two:5433/shop?target_session_attrs=read-write",
        "postgresql://host:5432/shop?application_name=a@b",
        "postgresql://host/shop?passfile=/run/passfile&sslkey=/run/client.key&require_auth=scram-sha-256",
        "postgresql:///shop?host=/run/postgresql&options=-csearch_path%3Drecsys",
    ],
)
def test_a_database_without_secrets_stays_as_it_is(url):
    assert checked_database(url) == url


@pytest.mark.parametrize(
    "url", ["mysql://host/shop", f"host=h password={SECRET}", "shop", f"u:{SECRET}@h/db"]
)
def test_what_is_no_database_is_not_shown_either(url):
    with pytest.raises(ValueError, match="no URL of a PostgreSQL database") as refusal:
        checked_database(url)
    assert SECRET not in str(refusal.value)


# --- MLflow ---


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@host/",
        f"https://{SECRET}@host",
        f"https://user:a/{SECRET}@host",
        f"https://user:a?{SECRET}@host",
        f"http://host:5000/?token={SECRET}",
        f"http://host:5000/#access_token={SECRET}",
    ],
)
def test_a_secret_of_a_tracker_is_refused_and_not_shown(url):
    with pytest.raises(ValueError, match=r"holds a password or key.*MLFLOW_TRACKING_TOKEN") as refusal:
        checked_tracker(url)
    assert SECRET not in str(refusal.value)
    with pytest.raises(ValidationError) as refusal_by_field:
        MlflowConfig(uri=url)
    assert SECRET not in str(refusal_by_field.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5000",
        "https://mlflow.example.org/team/a@b",
        "http://[::1]:5000",
        "file:///srv/a:b@c",
    ],
)
def test_a_tracker_without_secrets_stays_as_it_is(url):
    assert checked_tracker(url) == url


@pytest.mark.parametrize("url", ["databricks", f"sqlite:///{SECRET}.db", "mlflow.example.org", "https://"])
def test_what_is_no_tracker_is_not_shown_either(url):
    with pytest.raises(ValueError, match="no address of an MLflow tracking server") as refusal:
        checked_tracker(url)
    assert SECRET not in str(refusal.value)


def test_an_empty_path_says_so():
    with pytest.raises(ValueError, match="the path is empty"):
        checked_location(" ")
