//! The root, and the files of its page.

use utoipa::openapi::HttpMethod;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{HeaderValue, VARY};
use warp::reply::Response;

use crate::http::accept;
use crate::http::asset::{self, Asset, CSS, HTML, SCRIPT, SVG};
use crate::http::describe::{Document, Operation, content};
use crate::http::problem::Problem;
use crate::http::route::{Allowed, Matched, answer, at, get_or_head, method_not_allowed};
use crate::http::schema::text;
use crate::ops::index;

const ROOT: &[&str] = &["/"];
const FILES: &[&str] = &[
    "/assets/app.css",
    "/assets/icon.svg",
    "/assets/app.js",
    "/assets/api.js",
    "/assets/dom.js",
    "/assets/view.js",
    "/assets/table.js",
    "/assets/passenger.js",
    "/assets/survival.js",
    "/assets/deployments.js",
    "/assets/air.js",
];

/// Each template with the methods that it takes.
pub const ALLOWED: Allowed = &[(ROOT, "GET, HEAD")];
const ALLOWED_FILES: Allowed = &[(FILES, "GET, HEAD")];

const TEXT: &str = "text/plain; charset=utf-8";

const PAGE: Asset = Asset { path: ROOT[0], media_type: HTML, body: include_bytes!("site/index.html"), gzipped: false };

const ASSETS: [Asset; FILES.len()] = [
    file(0, CSS, include_bytes!("site/app.css")),
    file(1, SVG, include_bytes!("site/icon.svg")),
    file(2, SCRIPT, include_bytes!("site/app.js")),
    file(3, SCRIPT, include_bytes!("site/api.js")),
    file(4, SCRIPT, include_bytes!("site/dom.js")),
    file(5, SCRIPT, include_bytes!("site/view.js")),
    file(6, SCRIPT, include_bytes!("site/table.js")),
    file(7, SCRIPT, include_bytes!("site/passenger.js")),
    file(8, SCRIPT, include_bytes!("site/survival.js")),
    file(9, SCRIPT, include_bytes!("site/deployments.js")),
    file(10, SCRIPT, include_bytes!("site/air.js")),
];

const fn file(index: usize, media_type: &'static str, body: &'static [u8]) -> Asset {
    Asset { path: FILES[index], media_type, body, gzipped: false }
}

/// All routes of the page.
pub fn routes() -> BoxedFilter<(Response,)> {
    let headers = warp::header::headers_cloned;
    let root = at(ROOT)
        .and(get_or_head())
        .and(headers())
        .then(|matched: Matched, headers: HeaderMap| answer(matched.route, async move { root(&headers) }));
    let files = at(FILES).and(get_or_head()).and(headers()).then(|matched: Matched, headers: HeaderMap| {
        let asset = ASSETS.iter().find(|asset| asset.path == matched.route.0);
        answer(matched.route, async move { asset.ok_or_else(Problem::internal)?.answer(&headers) })
    });
    root.or(files).unify().or(method_not_allowed(ALLOWED)).unify().or(method_not_allowed(ALLOWED_FILES)).unify().boxed()
}

/// A browser names `text/html`; curl and programs do not.
fn root(headers: &HeaderMap) -> Result<Response, Problem> {
    let mut response = if accept::names(headers, "text/html") {
        PAGE.answer(headers)?
    } else {
        asset::answer(headers, TEXT, index::text().into())
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Adds the root to the document.
pub fn describe(document: &mut Document) {
    let root = Operation::new("Documentation", "getRoot", "What is served here")
        .says("The page for people where `Accept` names `text/html`, a plain list for everybody else.")
        .answers(
            200,
            "The list or the page.",
            [
                ("text/plain", content(text(), "pycrudapi\n\nPassengers\n  GET    /v1/passengers\n")),
                ("text/html", content(text(), "<!doctype html>")),
            ],
        );
    document.operation(HttpMethod::Get, ROOT, &root);
}
