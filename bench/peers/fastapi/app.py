"""FastAPI + asyncpg + uvicorn, a pool in each worker process."""

import os
import time
from contextlib import asynccontextmanager
from typing import Literal
from uuid import UUID

import asyncpg
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

COLUMNS = """uuid, survived, passenger_class as "passengerClass", name, sex, age,
    siblings_or_spouses_aboard as "siblingsOrSpousesAboard",
    parents_or_children_aboard as "parentsOrChildrenAboard", fare"""


class Details(BaseModel):
    survived: bool
    passengerClass: int = Field(ge=1, le=3)
    name: str = Field(min_length=1, max_length=150)
    sex: Literal["male", "female"]
    age: float | None = Field(ge=0, le=130)
    siblingsOrSpousesAboard: int = Field(ge=0)
    parentsOrChildrenAboard: int = Field(ge=0)
    fare: float = Field(ge=0)


class Key(BaseModel):
    uuid: UUID


class Passenger(Details, Key):  # pydantic orders the fields of the last base first
    pass


@asynccontextmanager
async def lifespan(app):
    # asyncpg's default size; by default it prepares each statement once per connection.
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=10, max_size=10) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


def uuid7():
    """A version 7 uuid, so that the index grows at its end as for the others."""
    value = time.time_ns() // 1_000_000 << 80 | 7 << 76 | int.from_bytes(os.urandom(10), "big") & 0x0FFF3FFFFFFFFFFFFFFF
    return UUID(int=value | 2 << 62)


@app.get("/getpassenger/{key}")
async def get_passenger(key: UUID) -> Passenger:
    row = await app.state.pool.fetchrow(f"select {COLUMNS} from passengers where uuid = $1", key)
    if row is None:
        raise HTTPException(404)
    return Passenger(**row)


@app.get("/passengerlist")
async def list_passengers() -> list[Passenger]:
    rows = await app.state.pool.fetch(f"select {COLUMNS} from passengers order by uuid")
    return [Passenger(**row) for row in rows]


@app.post("/postpassenger", status_code=201)
async def create_passenger(body: Details) -> Passenger:
    row = await app.state.pool.fetchrow(
        f"insert into passengers values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning {COLUMNS}",
        uuid7(),
        *body.model_dump().values(),
    )
    return Passenger(**row)
