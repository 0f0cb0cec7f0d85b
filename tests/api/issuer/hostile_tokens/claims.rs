//! Claims with wrong types and values, and duplicate members.

use serde_json::{Map, Value, json};

use super::super::signer::ec;
use super::super::{LEEWAY, NOW, claims, with, without};
use super::Tokens;

pub fn claims_of_wrong_types(tokens: &mut Tokens) {
    let issuer = claims()["iss"].clone();
    let audience = claims()["aud"].clone();
    let any = [
        Value::Null,
        json!(true),
        json!(false),
        json!({}),
        json!([]),
        json!([null]),
        json!({"exp": *NOW + 300}),
        json!(""),
    ];
    for name in ["iss", "aud", "exp", "nbf", "iat", "sub"] {
        for value in &any {
            tokens.claims(format!("{name} {value}"), &with(name, value.clone()));
        }
    }
    for name in ["iss", "aud", "exp", "sub"] {
        tokens.claims(format!("no {name}"), &without(name));
    }
    for name in ["exp", "nbf", "iat"] {
        for value in [
            json!((*NOW + 300).to_string()),
            json!("soon"),
            json!([*NOW + 300]),
            json!(1e300),
            json!((*NOW + 300) * 1000),
            json!(u64::MAX),
            json!("2027-01-15T08:05:00Z"),
        ] {
            tokens.claims(format!("{name} {value}"), &with(name, value));
        }
        let text =
            claims().to_string().replace(&format!("\"{name}\":{}", claims()[name]), &format!("\"{name}\":1e999"));
        tokens.add(format!("{name} 1e999"), ec().token_of(&ec().header().to_string(), &text));
        for word in ["NaN", "Infinity", "0x77359400", "+1800000300", "01800000300"] {
            let text =
                claims().to_string().replace(&format!("\"{name}\":{}", claims()[name]), &format!("\"{name}\":{word}"));
            tokens.add(format!("{name} {word}"), ec().token_of(&ec().header().to_string(), &text));
        }
    }
    for issuer in [
        json!("https://id.example/"),
        json!("https://ID.example"),
        json!("http://id.example"),
        json!("https://id.example.evil.example"),
        json!("https://id.example\0"),
        json!(" https://id.example"),
        json!([issuer]),
        json!({"iss": issuer}),
        json!(1),
    ] {
        tokens.claims(format!("iss {issuer}"), &with("iss", issuer));
    }
    for audience in [
        json!("https://api.example/"),
        json!("https://api"),
        json!("https://API.example"),
        json!("*"),
        json!("https://api.example https://other.example"),
        json!([[audience]]),
        json!([audience, 1]),
        json!([audience, null]),
        json!({"aud": audience}),
        json!(["https://other.example"]),
        json!(1),
    ] {
        tokens.claims(format!("aud {audience}"), &with("aud", audience));
    }
    for subject in [
        json!("a".repeat(256)),
        json!("ä".repeat(128)),
        json!("a\0"),
        json!("a\nb"),
        json!("\u{7f}"),
        json!("\u{85}"),
        json!("a\u{202e}b"),
        json!("a\u{2069}"),
        json!("a\u{2029}b"),
        json!("\t"),
        json!(1),
        json!(["alice"]),
    ] {
        tokens.claims(format!("sub {subject}"), &with("sub", subject));
    }
    for name in ["scope", "scp"] {
        for value in [
            Value::Null,
            json!(1),
            json!(true),
            json!({"admin": true}),
            json!(["steps:create", 1]),
            json!([["admin"]]),
            json!([null]),
        ] {
            let mut claims = without("scope");
            claims[name] = value.clone();
            tokens.claims(format!("{name} {value}"), &claims);
        }
    }
    for bound in [
        json!({"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
        json!({"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
        Value::Null,
    ] {
        tokens.claims(format!("cnf {bound}"), &with("cnf", bound));
    }
}

pub fn times(tokens: &mut Tokens) {
    let leeway = LEEWAY.as_secs();
    for (name, value) in [
        ("exp", json!(*NOW - leeway)),
        ("exp", json!(*NOW - leeway - 1)),
        ("exp", json!(0)),
        ("exp", json!(-1)),
        ("exp", json!(-1e300)),
        ("exp", json!(300)),
        ("exp", json!(0.5)),
        ("nbf", json!(*NOW + 86400)),
        ("nbf", json!(253_402_300_799_u64)),
        ("iat", json!(*NOW + 86400)),
        ("iat", json!(253_402_300_799_u64)),
    ] {
        tokens.claims(format!("{name} {value}"), &with(name, value));
    }
}

pub fn duplicates(tokens: &mut Tokens) {
    let (header, claims) = (ec().header(), claims());
    let twice = |object: &Value, name: &str, first: &Value| {
        // As the first and as the last member, because parsers keep either.
        let members = object.to_string();
        let inner = &members[1..members.len() - 1];
        [format!("{{\"{name}\":{first},{inner}}}"), format!("{{{inner},\"{name}\":{first}}}")]
    };
    let members: &Map<String, Value> = claims.as_object().expect("an object");
    for (name, value) in members {
        for other in [value.clone(), json!("other"), json!(*NOW + 9999)] {
            for text in twice(&claims, name, &other) {
                tokens.add(format!("{name} twice, once {other}"), ec().token_of(&header.to_string(), &text));
            }
        }
    }
    for name in ["alg", "typ", "kid"] {
        for other in [header[name].clone(), json!("none")] {
            for text in twice(&header, name, &other) {
                tokens.add(format!("{name} twice, once {other}"), ec().token_of(&text, &claims.to_string()));
            }
        }
    }
    for inner in [r#"{"a":1,"a":2}"#, r#"[{"a":1,"a":1}]"#, r#"{"a":1,"\u0061":2}"#] {
        let text = claims.to_string().replacen('{', &format!("{{\"act\":{inner},"), 1);
        tokens.add(format!("a member twice inside: {inner}"), ec().token_of(&header.to_string(), &text));
    }
    let text = claims.to_string().replacen('{', r#"{"\u0073ub":"admin","#, 1);
    tokens.add("sub twice, once in another spelling", ec().token_of(&header.to_string(), &text));
}
