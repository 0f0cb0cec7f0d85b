// Fastify + pg with a schema for each answer, one process per core.
import cluster from "node:cluster";
import os from "node:os";
import Fastify from "fastify";
import pg from "pg";
import { v7 as uuid7 } from "uuid";

const COLUMNS = `uuid, survived, passenger_class as "passengerClass", name, sex, age,
  siblings_or_spouses_aboard as "siblingsOrSpousesAboard",
  parents_or_children_aboard as "parentsOrChildrenAboard", fare`;

const details = {
  survived: { type: "boolean" },
  passengerClass: { type: "integer", minimum: 1, maximum: 3 },
  name: { type: "string", minLength: 1, maxLength: 150 },
  sex: { enum: ["male", "female"] },
  age: { type: ["number", "null"], minimum: 0, maximum: 130 },
  siblingsOrSpousesAboard: { type: "integer", minimum: 0 },
  parentsOrChildrenAboard: { type: "integer", minimum: 0 },
  fare: { type: "number", minimum: 0 },
};
const body = { type: "object", properties: details, required: Object.keys(details), additionalProperties: false };
// fast-json-stringify has no fast path for enumerations.
const passenger = {
  type: "object",
  properties: { uuid: { type: "string" }, ...details, sex: { type: "string" } },
};

async function serve() {
  // pg's default size; a named statement is prepared once per connection.
  const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10 });
  const app = Fastify();

  app.get("/getpassenger/:key", { schema: { response: { 200: passenger } } }, async (request, reply) => {
    const { rows } = await pool.query({
      name: "get",
      text: `select ${COLUMNS} from passengers where uuid = $1`,
      values: [request.params.key],
    });
    return rows[0] ?? reply.code(404).send();
  });

  const list = { type: "array", items: passenger };
  app.get("/passengerlist", { schema: { response: { 200: list } } }, async () => {
    const { rows } = await pool.query({ name: "list", text: `select ${COLUMNS} from passengers order by uuid` });
    return rows;
  });

  app.post("/postpassenger", { schema: { body, response: { 201: passenger } } }, async (request, reply) => {
    const { rows } = await pool.query({
      name: "create",
      text: `insert into passengers values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning ${COLUMNS}`,
      values: [uuid7(), ...Object.keys(details).map((field) => request.body[field])],
    });
    reply.code(201);
    return rows[0];
  });

  await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
}

if (cluster.isPrimary) {
  for (let core = 0; core < os.availableParallelism(); core++) cluster.fork();
  process.on("SIGTERM", () => process.exit());
} else {
  await serve();
}
