//! actix-web + tokio-postgres: one client for each worker thread, shared by its requests, which are pipelined on it.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path};
use actix_web::{App, HttpResponse, HttpServer, error, get, post};
use passenger::{CREATE, Details, GET, LIST, Passenger};
use tokio_postgres::{Client, NoTls, Statement};
use uuid::Uuid;

#[path = "../../passenger.rs"]
mod passenger;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Database {
    client: Client,
    get: Statement,
    list: Statement,
    create: Statement,
}

impl Database {
    async fn connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        actix_web::rt::spawn(connection);
        let (get, list, create) =
            (client.prepare(GET).await?, client.prepare(LIST).await?, client.prepare(CREATE).await?);
        Ok(Self { client, get, list, create })
    }
}

fn failed(_: tokio_postgres::Error) -> actix_web::Error {
    error::ErrorInternalServerError("the database failed")
}

#[get("/getpassenger/{key}")]
async fn get_passenger(database: Data<Database>, key: Path<Uuid>) -> actix_web::Result<Json<Passenger>> {
    let row = database.client.query_opt(&database.get, &[&*key]).await.map_err(failed)?;
    row.map(|row| Json(row.into())).ok_or_else(|| error::ErrorNotFound("no such passenger"))
}

#[get("/passengerlist")]
async fn list_passengers(database: Data<Database>) -> actix_web::Result<Json<Vec<Passenger>>> {
    let rows = database.client.query(&database.list, &[]).await.map_err(failed)?;
    Ok(Json(rows.into_iter().map(Passenger::from).collect()))
}

#[post("/postpassenger")]
async fn create_passenger(database: Data<Database>, details: Json<Details>) -> actix_web::Result<HttpResponse> {
    let passenger = Passenger { uuid: Uuid::now_v7(), details: details.into_inner() };
    let d = &passenger.details;
    database
        .client
        .execute(
            &database.create,
            &[
                &passenger.uuid,
                &d.survived,
                &d.passenger_class,
                &d.name,
                &d.sex,
                &d.age,
                &d.siblings_or_spouses_aboard,
                &d.parents_or_children_aboard,
                &d.fare,
            ],
        )
        .await
        .map_err(failed)?;
    Ok(HttpResponse::build(StatusCode::CREATED).json(passenger))
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL");
    let port: u16 = std::env::var("PORT").expect("PORT").parse().expect("a port");
    HttpServer::new(move || {
        let url = url.clone();
        App::new()
            .data_factory(move || {
                let url = url.clone();
                async move { Database::connect(&url).await }
            })
            .service(get_passenger)
            .service(list_passengers)
            .service(create_passenger)
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await
}
