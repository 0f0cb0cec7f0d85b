"""Flask + psycopg2, a pool in each gunicorn worker: the kind of service that pycrudapi replaces."""

import os
import time
import uuid

from flask import Flask, abort, jsonify, request
from psycopg2.extras import RealDictCursor, register_uuid
from psycopg2.pool import ThreadedConnectionPool

COLUMNS = """uuid, survived, passenger_class as "passengerClass", name, sex, age,
    siblings_or_spouses_aboard as "siblingsOrSpousesAboard",
    parents_or_children_aboard as "parentsOrChildrenAboard", fare"""
FIELDS = ("survived", "passengerClass", "name", "sex", "age", "siblingsOrSpousesAboard", "parentsOrChildrenAboard",
          "fare")  # fmt: skip

register_uuid()
app = Flask(__name__)
app.json.sort_keys = False
# As many as the worker has threads; see bench/contestants.py.
pool = ThreadedConnectionPool(1, int(os.environ["THREADS"]), os.environ["DATABASE_URL"])


def query(sql, values=()):
    connection = pool.getconn()
    try:
        with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall()
    finally:
        pool.putconn(connection)


def uuid7():
    """A version 7 uuid, so that the index grows at its end as for the others."""
    value = time.time_ns() // 1_000_000 << 80 | 7 << 76 | int.from_bytes(os.urandom(10), "big") & 0x0FFF3FFFFFFFFFFFFFFF
    return uuid.UUID(int=value | 2 << 62)


@app.get("/getpassenger/<uuid:key>")
def get_passenger(key):
    rows = query(f"select {COLUMNS} from passengers where uuid = %s", (key,))
    if not rows:
        abort(404)
    return jsonify(rows[0])


@app.get("/passengerlist")
def list_passengers():
    return jsonify(query(f"select {COLUMNS} from passengers order by uuid"))


@app.post("/postpassenger")
def create_passenger():
    body = request.get_json()
    rows = query(
        f"insert into passengers values (%s, %s, %s, %s, %s, %s, %s, %s, %s) returning {COLUMNS}",
        (uuid7(), *(body[field] for field in FIELDS)),
    )
    return jsonify(rows[0]), 201
