//! Every route of the public listener, with the access that it requires.

use crate::http::endpoint::Endpoint;
use crate::resource::registry::Resources;
use crate::{air_quality, docs, identity, ops, pages, resource, steps, tokens};

/// The routes in the OpenAPI document.
pub fn operations(resources: Resources) -> impl Iterator<Item = &'static Endpoint> {
    let others = [
        air_quality::routes::ENDPOINTS,
        steps::routes::ENDPOINTS,
        identity::routes::ENDPOINTS,
        tokens::routes::ENDPOINTS,
        ops::health::ENDPOINTS,
        docs::routes::ENDPOINTS,
        pages::routes::ENDPOINTS,
    ];
    resources.iter().copied().map(resource::routes::endpoints).chain(others).flatten()
}

/// All routes.
pub fn all(resources: Resources) -> impl Iterator<Item = &'static Endpoint> {
    operations(resources).chain(docs::routes::FILE_ENDPOINTS).chain(pages::routes::FILE_ENDPOINTS)
}
