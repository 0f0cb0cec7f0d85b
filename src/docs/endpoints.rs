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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::endpoint::AccessTable;
    use crate::resource::registry::{RESERVED_NAMES, RESERVED_URLS, load};

    #[test]
    fn no_url_has_two_accesses() {
        let resources = load(None, None).expect("the built-in descriptions are right");
        assert!(!AccessTable::new(all(resources)).scopes().is_empty());
    }

    #[test]
    fn no_description_can_take_a_url_of_the_service() {
        for template in all(&[]).flat_map(|endpoint| endpoint.templates) {
            let mut segments = template.split('/').skip(1);
            let first = segments.next().expect("a leading slash");
            // URLs of descriptions contain no dots, and are not empty.
            let is_reserved =
                first.is_empty() || first.starts_with('.') || RESERVED_URLS.contains(&&*format!("/{first}"));
            let name = segments.next().filter(|_| first == "v1");
            assert!(is_reserved && name.is_none_or(|name| RESERVED_NAMES.contains(&name)), "{template}");
        }
    }
}
