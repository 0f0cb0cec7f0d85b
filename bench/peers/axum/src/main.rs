//! axum + deadpool-postgres: a connection is checked out for each request, statements are prepared once on each.

use std::str::FromStr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use passenger::{CREATE, Details, GET, LIST, Passenger};
use tokio_postgres::{Config, NoTls};
use uuid::Uuid;

#[path = "../../passenger.rs"]
mod passenger;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn failed(_: impl std::error::Error) -> StatusCode {
    StatusCode::INTERNAL_SERVER_ERROR
}

async fn get_passenger(State(pool): State<Pool>, Path(key): Path<Uuid>) -> Result<Json<Passenger>, StatusCode> {
    let client = pool.get().await.map_err(failed)?;
    let statement = client.prepare_cached(GET).await.map_err(failed)?;
    let row = client.query_opt(&statement, &[&key]).await.map_err(failed)?;
    row.map(|row| Json(row.into())).ok_or(StatusCode::NOT_FOUND)
}

async fn list_passengers(State(pool): State<Pool>) -> Result<Json<Vec<Passenger>>, StatusCode> {
    let client = pool.get().await.map_err(failed)?;
    let statement = client.prepare_cached(LIST).await.map_err(failed)?;
    let rows = client.query(&statement, &[]).await.map_err(failed)?;
    Ok(Json(rows.into_iter().map(Passenger::from).collect()))
}

async fn create_passenger(
    State(pool): State<Pool>,
    Json(details): Json<Details>,
) -> Result<(StatusCode, Json<Passenger>), StatusCode> {
    let client = pool.get().await.map_err(failed)?;
    let statement = client.prepare_cached(CREATE).await.map_err(failed)?;
    let passenger = Passenger { uuid: Uuid::now_v7(), details };
    let d = &passenger.details;
    client
        .execute(
            &statement,
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
    Ok((StatusCode::CREATED, Json(passenger)))
}

#[tokio::main]
async fn main() {
    let config = Config::from_str(&std::env::var("DATABASE_URL").expect("DATABASE_URL")).expect("a libpq URL");
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    // The size that the product's pool has, and deadpool's default on a machine with few cores is close to it.
    let pool = Pool::builder(manager).max_size(10).build().expect("a pool");
    let app = Router::new()
        .route("/getpassenger/{key}", get(get_passenger))
        .route("/passengerlist", get(list_passengers))
        .route("/postpassenger", post(create_passenger))
        .with_state(pool);
    let port = std::env::var("PORT").expect("PORT");
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.expect("a free port");
    axum::serve(axum::serve::ListenerExt::tap_io(listener, |stream| drop(stream.set_nodelay(true))), app)
        .await
        .expect("served");
}
