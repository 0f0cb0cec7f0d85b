//! Wrong lengths, part counts and encodings.

use serde_json::json;

use super::super::signer::{base64url, ec};
use super::super::{claims, with};
use super::Tokens;

/// Wrong lengths and part counts.
pub fn shapes(tokens: &mut Tokens) {
    let good = ec().token(&claims());
    for end in (0..good.len()).step_by(good.len() / 40) {
        tokens.add(format!("the first {end} bytes"), &good[..end]);
        tokens.add(format!("without the first {} bytes", end + 1), &good[end + 1..]);
    }
    let parts: Vec<&str> = good.split('.').collect();
    for (kind, shape) in [
        ("no dots", parts.concat()),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.{}", parts[2])),
        ("five parts", format!("{good}.{}.{}", parts[1], parts[2])),
        ("dots alone", "..".to_owned()),
        ("many dots", ".".repeat(4000)),
        ("a dot behind", format!("{good}.")),
        ("a dot in front", format!(".{good}")),
        ("no header", format!(".{}.{}", parts[1], parts[2])),
        ("no claims", format!("{}..{}", parts[0], parts[2])),
        ("parts the other way round", format!("{}.{}.{}", parts[2], parts[1], parts[0])),
        ("a JWE", "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6ji.XFBoMYUZodetZdvTiFvSkQ".to_owned()),
        ("JSON serialization", json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]}).to_string()),
    ] {
        tokens.add(kind, shape);
    }
    tokens.add("a token in a token", ec().token_of(&ec().header().to_string(), &good));
    tokens.add("a token in a token as JSON text", ec().token_of(&ec().header().to_string(), &json!(good).to_string()));
    tokens.claims("claims beyond 8 KiB", &with("more", json!("a".repeat(8000))));
    tokens.claims("a megabyte", &with("more", json!("a".repeat(1 << 20))));
    let mut header = ec().header();
    header["more"] = json!("a".repeat(8000));
    tokens.header("a header beyond 8 KiB", &header);
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(2000), "]".repeat(2000));
    tokens.add("deep claims", ec().token_of(&ec().header().to_string(), &deep));
    tokens.add("a deep header", ec().token_of(&deep, &claims().to_string()));
}

pub fn encodings(tokens: &mut Tokens) {
    let (header, claims) = (ec().header().to_string(), claims().to_string());
    let good = ec().token_of(&header, &claims);
    let parts: Vec<&str> = good.split('.').collect();
    for (kind, part) in [
        ("padded", "="),
        ("with a blank", " "),
        ("with a line end", "\n"),
        ("with a plus", "+"),
        ("with a slash", "/"),
        ("with a null", "\0"),
        ("with a letter beyond ASCII", "é"),
        ("percent-encoded", "%3D"),
    ] {
        for at in 0..3 {
            let mut changed = parts.iter().map(ToString::to_string).collect::<Vec<_>>();
            changed[at].push_str(part);
            tokens.add(format!("part {at} {kind}"), changed.join("."));
        }
    }
    // The last of 86 characters has four unused bits; each other value of them is another encoding of the same signature.
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = letters.find(good.chars().last().expect("a letter")).expect("base64url");
    for other in [1, 7, 15] {
        let letter = &letters[last + other..=last + other];
        tokens.add(format!("trailing bits {other}"), format!("{}{letter}", &good[..good.len() - 1]));
    }
    for (kind, header, claims) in [
        ("a byte order mark in front of the header", format!("\u{feff}{header}"), claims.clone()),
        ("a byte order mark in front of the claims", header.clone(), format!("\u{feff}{claims}")),
        ("something behind the header", format!("{header} x"), claims.clone()),
        ("something behind the claims", header.clone(), format!("{claims}{claims}")),
        ("a null behind the claims", header.clone(), format!("{claims}\0")),
        ("a list of claims", header.clone(), format!("[{claims}]")),
        ("a list of headers", format!("[{header}]"), claims.clone()),
        ("claims that are null", header.clone(), "null".to_owned()),
        ("no JSON", header.clone(), "sub=alice".to_owned()),
        ("a comment", header.clone(), claims.replacen('{', "{/**/", 1)),
        ("quotes of one stroke", header.clone(), claims.replace('"', "'")),
        ("half a surrogate pair", header.clone(), claims.replace("alice", "\\ud800")),
        ("an empty header", "{}".to_owned(), claims.clone()),
        ("empty claims", header.clone(), "{}".to_owned()),
    ] {
        tokens.add(kind, ec().token_of(&header, &claims));
    }
    let wide: Vec<u8> = claims.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let signed = format!("{}.{}", base64url(&header), base64url(wide));
    tokens.add("claims in UTF-16", format!("{signed}.{}", base64url(ec().sign(&signed))));
    let mut bytes = claims.replace("alice", "alic?").into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').expect("it is there");
    bytes[at] = 0xff;
    let signed = format!("{}.{}", base64url(&header), base64url(bytes));
    tokens.add("claims that are not UTF-8", format!("{signed}.{}", base64url(ec().sign(&signed))));
    for around in [" {}", "{} ", "\"{}\"", "Bearer {}", "<{}>", "{}\u{200b}"] {
        tokens.add(format!("{around:?} around it"), around.replace("{}", &good));
    }
}
