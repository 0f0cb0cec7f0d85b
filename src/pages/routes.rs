//! The root, and the files of the pages.

use std::sync::Arc;

use utoipa::openapi::HttpMethod;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::http::HeaderMap;
use warp::http::header::{CACHE_CONTROL, HeaderValue, VARY};
use warp::reply::Response;

use super::index;
use crate::http::accept;
use crate::http::asset::{self, Asset, CSS, HTML, Policy, SCRIPT, SVG};
use crate::http::describe::{Document, Operation, content, query};
use crate::http::endpoint::{Endpoint, PUBLIC};
use crate::http::problem::{Code, Problem};
use crate::http::query::Query;
use crate::http::route::{Matched, at, at_each, at_with_query, get_or_head, method_not_allowed};
use crate::http::schema::text;
use crate::resource::registry::Resources;

const ROOT: &[&str] = &["/"];
/// The page of any resource.
const RESOURCE: &[&str] = &["/resources/{name}"];
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
    "/assets/site.js",
    "/assets/resource.js",
    "/assets/import.js",
    "/assets/history.js",
    "/assets/sign-in.js",
    "/assets/provider.js",
    "/assets/signed-in.js",
];

/// The endpoints of this module.
pub const ENDPOINTS: &[Endpoint] = &[Endpoint { templates: ROOT, methods: PUBLIC }];
/// The files of the pages, which are not in the OpenAPI document.
pub const FILE_ENDPOINTS: &[Endpoint] =
    &[Endpoint { templates: FILES, methods: PUBLIC }, Endpoint { templates: RESOURCE, methods: PUBLIC }];

/// The query parameters in which the page stores its view: site/view.js.
const VIEW: &[&str] = &["q", "class", "sex", "survived", "min", "max", "sort", "after", "before"];

/// The description of each parameter, with an example.
const SHOWN: [(&str, &str); 9] = [
    ("view of the page: part of a name", "smith"),
    ("view of the page: a class", "1"),
    ("view of the page: a sex", "female"),
    ("view of the page: survivors or others", "true"),
    ("view of the page: the minimum age", "10"),
    ("view of the page: the maximum age", "60"),
    ("view of the page: sort column and direction", "fare.desc"),
    ("view of the page: the rows after a cursor", "WzFd"),
    ("view of the page: the rows before a cursor", "WzFd"),
];

const TEXT: &str = "text/plain; charset=utf-8";

const PAGE: Asset = Asset { path: ROOT[0], media_type: HTML, body: include_bytes!("site/index.html"), gzipped: false };

/// The page to which the identity provider redirects a browser.
const SIGNED_IN: Asset =
    Asset { path: ROOT[0], media_type: HTML, body: include_bytes!("site/signed-in.html"), gzipped: false };

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
    file(11, SCRIPT, include_bytes!("site/site.js")),
    file(12, SCRIPT, include_bytes!("site/resource.js")),
    file(13, SCRIPT, include_bytes!("site/import.js")),
    file(14, SCRIPT, include_bytes!("site/history.js")),
    file(15, SCRIPT, include_bytes!("site/sign-in.js")),
    file(16, SCRIPT, include_bytes!("site/provider.js")),
    file(17, SCRIPT, include_bytes!("site/signed-in.js")),
];

const RESOURCE_PAGE: Asset =
    Asset { path: RESOURCE[0], media_type: HTML, body: include_bytes!("site/resource.html"), gzipped: false };

const fn file(index: usize, media_type: &'static str, body: &'static [u8]) -> Asset {
    Asset { path: FILES[index], media_type, body, gzipped: false }
}

/// The configuration of the pages.
pub struct Context {
    /// The served resources.
    pub resources: Resources,
    /// Whether they sign users in at an identity provider.
    pub signs_in: bool,
    /// The content security policy of the pages.
    pub policy: Policy,
}

/// All routes of the pages.
pub fn routes(context: Context) -> BoxedFilter<(Response,)> {
    let headers = warp::header::headers_cloned;
    let context = Arc::new(context);
    let root = {
        let context = context.clone();
        at_with_query(ROOT).and(get_or_head()).and(headers()).then(
            move |matched: Matched, raw: String, headers: HeaderMap| {
                let context = context.clone();
                async move { matched.answer(async { root(&context, &raw, &headers) }).await }
            },
        )
    };
    let files = at_each(FILES).and(get_or_head()).and(headers()).then(|matched: Matched, headers: HeaderMap| {
        let asset = ASSETS.iter().find(|asset| asset.path == matched.route.0);
        async move { matched.answer(async { asset.ok_or_else(Problem::internal)?.answer(&headers) }).await }
    });
    let resource = at(RESOURCE).and(get_or_head()).and(headers()).then(move |matched: Matched, headers: HeaderMap| {
        let context = context.clone();
        async move { matched.answer(async { resource(&context, &matched.segment, &headers) }).await }
    });
    root.or(files)
        .unify()
        .or(resource)
        .unify()
        .or(method_not_allowed(ENDPOINTS))
        .unify()
        .or(method_not_allowed(FILE_ENDPOINTS))
        .unify()
        .boxed()
}

/// Browsers list `text/html` in `Accept`; curl and other programs do not. The view is in the query, which the page's script
/// reads.
fn root(context: &Context, raw: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    if context.signs_in && is_answer(raw) {
        let mut response = SIGNED_IN.answer(headers)?;
        // The URL contains the authorization code.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        return Ok(response);
    }
    Query::parse(raw, VIEW).finish()?;
    let mut response = if accept::names(headers, "text/html") {
        PAGE.answer_with(headers, &context.policy)?
    } else {
        asset::answer(headers, TEXT, index::text(context.resources).into())
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Returns true if this is a redirect from the identity provider (RFC 6749, section 4.1.2).
fn is_answer(raw: &str) -> bool {
    raw.split('&').any(|parameter| parameter.starts_with("state="))
}

fn resource(context: &Context, name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    if context.resources.iter().all(|resource| resource.name != name) {
        return Err(Problem::new(Code::NotFound, "no resource has this name; GET / lists the available ones"));
    }
    RESOURCE_PAGE.answer_with(headers, &context.policy)
}

/// Adds the root to the document.
pub fn describe(document: &mut Document) {
    let root = Operation::new("Documentation", "getRoot", "List of endpoints, or the web interface")
        .description("The web interface if `Accept` lists `text/html`, otherwise a plain-text list of endpoints.")
        .with(VIEW.iter().zip(SHOWN).map(|(name, (what, example))| query(name, text(), what, example)))
        .response(
            200,
            "The list or the web interface.",
            [
                ("text/plain", content(text(), "pycrudapi\n\nPassengers\n  GET    /v1/passengers\n")),
                ("text/html", content(text(), "<!doctype html>")),
            ],
        );
    document.operation(HttpMethod::Get, ROOT, &root);
}

#[cfg(test)]
mod tests {
    use super::VIEW;

    #[test]
    fn the_root_accepts_the_parameters_that_the_page_writes() {
        let script = include_str!("site/view.js");
        let names = |list: &str| -> Vec<String> {
            let text = script.split_once(list).expect("a list").1.split_once(']').expect("its end").0;
            text.split(", ").map(|name| name.trim_matches('"').to_owned()).collect()
        };
        let mut written = names("const FILTERS = [");
        written.push("sort".to_owned());
        written.extend(names("const CURSORS = ["));
        assert_eq!(written, VIEW);
    }
}
