//! Disallowed algorithms, keys of another type, and invalid signatures.

use ring::hmac;
use serde_json::{Value, json};

use super::super::signer::{base64url, ec, ed, openssl, rsa, rsa_pss};
use super::super::{claims, with};
use super::{Tokens, document, foreign_keys, misplaced, short};

pub fn algorithms(tokens: &mut Tokens) {
    let good = ec().token(&claims());
    let signature = good.rsplit('.').next().expect("a part");
    for alg in ["none", "None", "NONE", "nOnE", "none ", ""] {
        for kid in [json!({"kid": "ec"}), json!({})] {
            let mut header = json!({"alg": alg, "typ": "at+jwt"});
            header.as_object_mut().expect("an object").extend(kid.as_object().expect("an object").clone());
            let unsigned = format!("{}.{}.", base64url(header.to_string()), base64url(claims().to_string()));
            tokens.add(format!("alg {alg:?} without a signature"), &unsigned);
            tokens.add(format!("alg {alg:?} with a signature"), format!("{unsigned}{signature}"));
        }
    }
    for alg in [
        "RS384", "RS512", "PS384", "PS512", "ES384", "ES512", "ES256K", "Ed448", "es256", "rs256", "ES256 ", "dir",
        "A128KW", "RSA1_5", "SHA256",
    ] {
        let mut header = ec().header();
        header["alg"] = json!(alg);
        tokens.header(format!("alg {alg:?}"), &header);
    }
    for alg in [Value::Null, json!(1), json!(["ES256"]), json!({"alg": "ES256"}), json!(true)] {
        let mut header = ec().header();
        header["alg"] = alg.clone();
        tokens.header(format!("alg {alg}"), &header);
    }
    tokens.header("no alg", &json!({"typ": "at+jwt", "kid": "ec"}));
}

/// Signatures made with another type of key than declared, including HMAC with publicly known values.
pub fn confused_keys(tokens: &mut Tokens) {
    let spki = openssl(&["pkey", "-pubout", "-outform", "DER"], short());
    let pem = openssl(&["pkey", "-pubout"], short());
    let secrets = [
        ("nothing", Vec::new()),
        ("the modulus", rsa().modulus()),
        ("the key as JSON", rsa().jwk().to_string().into_bytes()),
        ("the key set", document().into_bytes()),
        ("the public key in DER", spki),
        ("the public key in PEM", pem),
        ("the shared key", b"secret".to_vec()),
    ];
    for (alg, hash) in [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)] {
        for (what, secret) in &secrets {
            let kid = if *what == "the shared key" { "shared" } else { "rsa" };
            let header = json!({"alg": alg, "typ": "at+jwt", "kid": kid}).to_string();
            let signed = format!("{}.{}", base64url(header), base64url(claims().to_string()));
            let tag = hmac::sign(&hmac::Key::new(hash, secret), signed.as_bytes());
            tokens.add(format!("{alg} with {what}"), format!("{signed}.{}", base64url(tag)));
        }
    }
    let signers = [rsa(), rsa_pss(), ec(), ed()];
    for (maker, named) in signers.iter().flat_map(|maker| signers.map(|named| (maker, named))) {
        if maker.kid == named.kid {
            continue;
        }
        // The maker's algorithm with another key's kid, and another key's algorithm with the maker's kid.
        let header = json!({"alg": maker.alg, "typ": "at+jwt", "kid": named.kid}).to_string();
        tokens.add(format!("{} of {}", maker.alg, named.kid), maker.token_of(&header, &claims().to_string()));
        let header = json!({"alg": named.alg, "typ": "at+jwt", "kid": maker.kid}).to_string();
        tokens.add(format!("{} by {}", named.alg, maker.kid), maker.token_of(&header, &claims().to_string()));
    }
    for stranger in foreign_keys() {
        tokens.add(format!("{} by a stranger", stranger.alg), stranger.token(&claims()));
        let header = json!({"alg": stranger.alg, "typ": "at+jwt"}).to_string();
        let unnamed = stranger.token_of(&header, &claims().to_string());
        tokens.add(format!("{} by a stranger without a name", stranger.alg), unnamed);
    }
    for (signer, _) in misplaced() {
        tokens.add(format!("key {}", signer.kid), signer.token(&claims()));
    }
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "short"}).to_string();
    let signed = format!("{}.{}", base64url(header), base64url(claims().to_string()));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), short()).expect("written");
    let made = openssl(&["dgst", "-sha256", "-sign", file.path().to_str().expect("UTF-8")], signed.as_bytes());
    tokens.add("an RSA key of 1024 bits", format!("{signed}.{}", base64url(made)));
    // With exponent 1 the signature is the padded hash itself.
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "exponent-1"}).to_string();
    let signed = format!("{}.{}", base64url(header), base64url(claims().to_string()));
    let hash = ring::digest::digest(&ring::digest::SHA256, signed.as_bytes());
    // RFC 8017, 9.2: the DigestInfo prefix of SHA-256.
    let prefix =
        [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0, 0x04, 0x20];
    let padding = vec![0xff; 256 - 3 - prefix.len() - 32];
    let forged = [&[0, 1][..], &padding, &[0], &prefix, hash.as_ref()].concat();
    tokens.add("an exponent of 1", format!("{signed}.{}", base64url(forged)));
}

pub fn signatures(tokens: &mut Tokens) {
    for signer in [rsa(), rsa_pss(), ec(), ed()] {
        let good = signer.token(&claims());
        let (signed, signature) = good.rsplit_once('.').expect("three parts");
        let bytes = signer.sign(signed);
        let mut put = |kind: &str, bytes: &[u8]| {
            tokens.add(format!("{}: {kind}", signer.alg), format!("{signed}.{}", base64url(bytes)));
        };
        put("no signature", b"");
        put("a signature of zeros", &vec![0; bytes.len()]);
        put("a signature of ones", &vec![0xff; bytes.len()]);
        put("a byte less", &bytes[..bytes.len() - 1]);
        put("a byte more", &[&bytes[..], &[0]].concat());
        put("a zero in front", &[&[0], &bytes[..]].concat());
        put("twice", &[&bytes[..], &bytes[..]].concat());
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            put(&format!("bit 0 of byte {at}"), &changed);
        }
        let changed =
            good.replacen(&base64url(claims().to_string()), &base64url(with("sub", json!("admin")).to_string()), 1);
        assert_ne!(changed, good, "the claims must contain the replaced text");
        tokens.add(format!("{}: other claims", signer.alg), changed);
        // An equivalent header with another encoding.
        let header = base64url(format!(" {}", signer.header()));
        tokens.add(
            format!("{}: another header", signer.alg),
            format!("{header}.{}.{signature}", base64url(claims().to_string())),
        );
    }
    let good = ec().token(&claims());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    // The order of P-256: r and s of 0, n and n + 1 were accepted by faulty verifiers (CVE-2022-21449).
    let order = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC63255";
    for last in ["0", "1", "2"] {
        let hex = format!("{order}{last}");
        let half: Vec<u8> =
            (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        tokens.add(
            format!("r and s near the order: {last}"),
            format!("{signed}.{}", base64url([&half[..], &half].concat())),
        );
    }
    let der =
        [&[0x30, 0x44, 0x02, 0x20][..], &ec().sign(signed)[..32], &[0x02, 0x20], &ec().sign(signed)[32..]].concat();
    tokens.add("a signature in DER", format!("{signed}.{}", base64url(der)));
    tokens.add("the signature's case changed", format!("{signed}.{}", signature.to_lowercase()));
}
