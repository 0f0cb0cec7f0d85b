//! The documentation endpoints, and their files.

use bytes::Bytes;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::reply::Response;

use super::problems;
use super::urls::{OPENAPI, PAGE, PROBLEM, PROBLEMS};
use crate::http::asset::{self, Asset, CSS, HTML, Policy, SCRIPT};
use crate::http::catalogue;
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::problem::{Code, Problem};
use crate::http::route::{Matched, at, at_each, get_or_head, method_not_allowed};

const FILES: &[&str] =
    &["/docs", "/docs/docs.css", "/docs/docs.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js"];

/// The endpoints of this module.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { templates: OPENAPI, methods: PUBLIC },
    Endpoint { templates: PROBLEMS, methods: PUBLIC },
    Endpoint { templates: PROBLEM, methods: PUBLIC },
    Endpoint { templates: PAGE, methods: PUBLIC },
];
/// The page's files, which are not in the OpenAPI document.
pub const FILE_ENDPOINTS: &[Endpoint] = &[Endpoint { templates: FILES, methods: PUBLIC }];

/// `swagger/VERSION` has the release of Swagger UI; scripts/vendor-swagger-ui updates it.
const ASSETS: [Asset; FILES.len()] = [
    file(0, HTML, include_bytes!("site/docs.html")),
    file(1, CSS, include_bytes!("site/docs.css")),
    file(2, SCRIPT, include_bytes!("site/docs.js")),
    Asset { gzipped: true, ..file(3, CSS, include_bytes!("swagger/swagger-ui.css.gz")) },
    Asset { gzipped: true, ..file(4, SCRIPT, include_bytes!("swagger/swagger-ui-bundle.js.gz")) },
];

const fn file(index: usize, media_type: &'static str, body: &'static [u8]) -> Asset {
    Asset { path: FILES[index], media_type, body, gzipped: false }
}

/// All routes of this module.
pub fn routes(document: Bytes, policy: Policy) -> BoxedFilter<(Response,)> {
    let headers = warp::header::headers_cloned;
    let openapi = at(OPENAPI).and(get_or_head()).and(headers()).then(move |matched: Matched, headers: HeaderMap| {
        let document = document.clone();
        async move { matched.answer(async { Ok(asset::answer(&headers, "application/json", document)) }).await }
    });
    let problems =
        at(PROBLEMS).and(get_or_head()).and(headers()).then(|matched: Matched, headers: HeaderMap| async move {
            matched.answer(async { Ok(page(&headers, problems::list())) }).await
        });
    let problem =
        at(PROBLEM).and(get_or_head()).and(headers()).then(|matched: Matched, headers: HeaderMap| async move {
            matched.answer(async { problem(&matched.segment, &headers) }).await
        });
    let files =
        at_each(FILES).and(get_or_head()).and(headers()).then(move |matched: Matched, headers: HeaderMap| {
            let asset = ASSETS.iter().find(|asset| asset.path == matched.route.0);
            let policy = policy.clone();
            async move {
                matched.answer(async { asset.ok_or_else(Problem::internal)?.answer_with(&headers, &policy) }).await
            }
        });
    openapi
        .or(files)
        .unify()
        .or(problems)
        .unify()
        .or(problem)
        .unify()
        .or(method_not_allowed(ENDPOINTS))
        .unify()
        .or(method_not_allowed(FILE_ENDPOINTS))
        .unify()
        .boxed()
}

fn problem(code: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let kind = catalogue::all().find(|kind| kind.code == code).ok_or_else(|| {
        Problem::new(Code::NotFound, "no kind of problem has this code; GET /docs/problems lists all of them")
    })?;
    Ok(page(headers, problems::page(&kind)))
}

fn page(headers: &HeaderMap, page: String) -> Response {
    asset::answer(headers, HTML, Bytes::from(page))
}
