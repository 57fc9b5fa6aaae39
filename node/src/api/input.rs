//! What clients send: request ids and JSON bodies, checked before anything is done.

use crate::api::errors::HttpError;
use axum::http::{HeaderMap, StatusCode, header};
use isthmus_api::{ApiError, KvdbSnapshot, REQUEST_ID_HEADER};
use isthmus_catalog::RequestId;
use serde::de::DeserializeOwned;

/// Bytes of a body at most, but of one that holds a saved kvdb: the largest request is a volume with a name of 63 bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Bytes of a body that holds a saved kvdb, at most.
pub const SNAPSHOT_BYTES_MAX: usize = KvdbSnapshot::CATALOG_BYTES_MAX * 2 + BODY_BYTES_MAX;

/// The id that the client gave its request, if any.
///
/// # Errors
/// 400 when the header is there and is no request id.
pub fn request_id(headers: &HeaderMap) -> Result<Option<RequestId>, HttpError> {
    let Some(value) = headers.get(REQUEST_ID_HEADER) else {
        return Ok(None);
    };
    let parsed = value.to_str().ok().and_then(|text| {
        let (client, number) = text.split_once('-')?;
        let plain = client.len() == 16
            && number.len() <= 20
            && text
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let client = plain
            .then(|| u64::from_str_radix(client, 16).ok())
            .flatten()?;
        Some(RequestId {
            client,
            number: number.parse().ok()?,
        })
    });
    parsed.map(Some).ok_or_else(|| {
        HttpError::field(
            &format!("header {REQUEST_ID_HEADER}"),
            "write 16 hex digits, '-' and a decimal number",
        )
    })
}

/// The body as a value of `T`.
///
/// # Errors
/// 415 when it does not say that it is JSON (which also keeps web pages of other origins out), 400 when it is not a `T`.
pub fn body<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, HttpError> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        let error = ApiError::new("the body is not said to be JSON")
            .next("send the header content-type: application/json");
        return Err(HttpError {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            error,
        });
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { "body".to_owned() } else { path };
        HttpError::field(&field, error.into_inner().to_string())
    })?;
    json.end()
        .map_err(|error| HttpError::field("body", error.to_string()))?;
    Ok(value)
}

/// Text for the audit trail.
///
/// # Errors
/// 400 when it is too long.
pub fn reason(text: &str) -> Result<String, HttpError> {
    const REASON_BYTES_MAX: usize = isthmus_catalog::Catalog::TEXT_BYTES_MAX;
    if text.len() > REASON_BYTES_MAX {
        return Err(HttpError::field(
            "reason",
            format!(
                "it has {} bytes, at most {REASON_BYTES_MAX} are kept",
                text.len()
            ),
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn parsed(text: &[u8]) -> Option<RequestId> {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID_HEADER, HeaderValue::from_bytes(text).ok()?);
        request_id(&headers).ok().flatten()
    }

    #[test]
    fn a_request_id_with_anything_wrong_is_refused_or_another_one() {
        let text = b"00f00000000000ff-18446744073709551615";
        let sound = RequestId {
            client: 0x00f0_0000_0000_00ff,
            number: u64::MAX,
        };
        assert_eq!(parsed(text), Some(sound));
        for bit in 0..text.len() * 8 {
            let mut text = text.to_vec();
            text[bit / 8] ^= 1 << (bit % 8);
            // Only the case of a hex digit may change without changing the number.
            let same_digit = text.eq_ignore_ascii_case(b"00f00000000000ff-18446744073709551615");
            assert_eq!(parsed(&text) == Some(sound), same_digit, "bit {bit}");
        }
        for cut in 0..=17 {
            assert_eq!(parsed(&text[..cut]), None, "cut at {cut}");
        }
        for wrong in [
            "00f00000000000ff-18446744073709551616",
            "00f00000000000ff--1",
            "00f00000000000ff-+1",
            "+0f00000000000ff-1",
            "00f00000000000f-1",
            "-",
            "",
        ] {
            assert_eq!(parsed(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
