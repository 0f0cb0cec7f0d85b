//! The resources that the suites test: passengers, and a test resource that has a column of every type.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, passenger, send};

/// A resource and bodies for its operations.
pub struct Subject {
    /// The URL of the resource.
    pub path: &'static str,
    /// A valid row.
    pub one: Value,
    /// Another valid row that differs in every field.
    pub other: Value,
    /// An invalid value for each field.
    pub wrong: Value,
}

/// All tested resources.
pub fn subjects() -> [Subject; 2] {
    [
        Subject {
            path: "/v1/passengers",
            one: passenger(),
            other: json!({
                "survived": false, "passengerClass": 3, "name": "Łukasz \"O'Neil\", x", "sex": "female", "age": null,
                "siblingsOrSpousesAboard": 2, "parentsOrChildrenAboard": 1, "fare": 7.25
            }),
            wrong: json!({
                "survived": "true", "passengerClass": 4, "name": "", "sex": "x", "age": 131, "siblingsOrSpousesAboard": -1,
                "parentsOrChildrenAboard": 0.5, "fare": null
            }),
        },
        Subject {
            path: "/v1/ledger",
            one: json!({
                "label": "Coal", "paid": true, "page": 7, "quantity": 3, "account": 9_007_199_254_740_993_i64, "ratio": 0.1,
                "amount": "12.50", "state": "open", "code": "AB-12", "due": "2026-01-31",
                "booked": "2026-01-31T12:00:00.000001Z", "voucher": "0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10"
            }),
            other: json!({
                "label": "=1+1, \"x\"", "paid": false, "page": 32767, "quantity": null, "account": -1, "ratio": null,
                "amount": "-9999999999.99", "state": "void", "code": "ZZ-0", "due": "2024-02-29", "booked": null,
                "voucher": null
            }),
            wrong: json!({
                "label": "", "paid": 1, "page": 0, "quantity": 2_147_483_648_i64, "account": "1", "ratio": "0.1",
                "amount": "0.005", "state": "Open", "code": "ab-1", "due": "2026-02-30", "booked": "2026-01-31", "voucher": "x"
            }),
        },
    ]
}

impl Subject {
    /// The names of the fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.one.as_object().expect("an object").keys().map(String::as_str)
    }
}

/// The flag that adds the test resource.
pub fn flag() -> String {
    format!("--resources-dir={}/tests/support/resources", env!("CARGO_MANIFEST_DIR"))
}

impl TestApp {
    /// A request with headers; depending on the method, a body is sent as a merge patch or as a complete document.
    pub async fn conditional(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let patches = method == Method::PATCH;
        let mut request = self.request(method, path);
        if let Some(body) = body {
            let media_type = if patches { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", media_type).body(body.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request).await
    }
}
