#!/bin/sh
# Run once by the postgres image, on an empty data folder: a role and a database each for Prefect and MLflow.
set -eu
for name in prefect mlflow; do
    psql --username "$POSTGRES_USER" --set ON_ERROR_STOP=1 --set "secret=$POSTGRES_PASSWORD" <<SQL
CREATE ROLE $name LOGIN PASSWORD :'secret';
CREATE DATABASE $name OWNER $name;
SQL
done
