//! The `Link` header of a page, with the URLs of the next and the previous page (RFC 8288).

use warp::http::header::{HeaderValue, LINK};
use warp::reply::Response;

use super::problem::{Code, Problem};

/// The maximum length of a page's URL. nginx accepts a request line of 8 KiB, and 20 KiB of response headers, which hold two of
/// these URLs.
pub const URL_MAX_BYTES: usize = 8_000;

/// Adds links to other pages, each with its query and its relation to this page.
///
/// # Errors
/// 414 if a URL would be too long to be requested: its query is percent-encoded again, and its cursor may contain long texts.
pub fn with_links(
    mut response: Response,
    path: &str,
    pages: impl IntoIterator<Item = (String, &'static str)>,
) -> Result<Response, Problem> {
    let mut links = Vec::new();
    for (query, relation) in pages {
        let length = path.len() + 1 + query.len();
        if length > URL_MAX_BYTES {
            return Err(Problem::new(
                Code::UriTooLong,
                format!(
                    "the URL of the {relation} page would have {length} bytes, percent-encoded and with its cursor, \
                     but at most {URL_MAX_BYTES} are accepted; shorten the filters, or order by columns with shorter \
                     values"
                ),
            ));
        }
        links.push(format!("<{path}?{query}>; rel=\"{relation}\""));
    }
    if !links.is_empty() {
        let links = HeaderValue::from_str(&links.join(", ")).expect("a query is percent-encoded");
        response.headers_mut().insert(LINK, links);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_whose_url_is_too_long_is_refused() {
        let link = |bytes| with_links(Response::default(), "/x", [("q".repeat(bytes), "next")]);
        let response = link(URL_MAX_BYTES - 3).expect("it is short enough");
        assert_eq!(response.headers()[LINK].len(), URL_MAX_BYTES + "<>; rel=\"next\"".len());
        assert!(link(URL_MAX_BYTES - 2).is_err());
    }
}
