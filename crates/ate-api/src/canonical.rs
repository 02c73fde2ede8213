//! Canonical JSON: equal values have equal bytes, so that a digest can stand for them.
//!
//! - object keys sorted by their UTF-8 bytes, at every level; no white space;
//! - strings as `serde_json` writes them: only `"`, `\` and control characters are escaped;
//! - a number that is a whole number of at most 2⁵³ is written as an integer, however it was given (`2.0` → `2`);
//!   other fractions in the shortest form that reads back as the same 64-bit number.

use serde::Serialize;
use serde_json::Value;

use crate::id::Digest;

/// Whole numbers up to here have exactly one 64-bit float.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The canonical bytes of a value.
pub fn to_vec(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    write(value, &mut out);
    out
}

/// sha256 of the canonical bytes.
pub fn digest(value: &Value) -> Digest {
    Digest::of(&to_vec(value))
}

/// The digest of a type of this system.
///
/// # Panics
/// If the type cannot be JSON: a map whose keys are not strings, or a failing `Serialize`. Ours have neither.
pub fn digest_of<T: Serialize>(value: &T) -> Digest {
    digest(&serde_json::to_value(value).expect("resource types have string keys and always serialize"))
}

/// Sorts by itself: what order serde_json keeps depends on features any crate may switch on.
fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_bytes());
            out.push(b'{');
            for (i, (key, value)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                scalar(key, out);
                out.push(b':');
                write(value, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Number(n) => match n.as_f64().filter(|f| n.is_f64() && f.fract() == 0.0 && f.abs() <= MAX_EXACT) {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53, checked above")]
            Some(whole) => scalar(&(whole as i64), out),
            None => scalar(n, out),
        },
        other => scalar(other, out),
    }
}

fn scalar<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("writing a scalar to memory does not fail");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(to_vec(value)).unwrap()
    }

    #[test]
    fn keys_are_sorted_and_nothing_is_superfluous() {
        let v: Value = serde_json::from_str(r#" { "b" : [1, {"z":null,"a":true}] , "a" : "x\"\n\u00e9" } "#).unwrap();
        assert_eq!(text(&v), r#"{"a":"x\"\né","b":[1,{"a":true,"z":null}]}"#);
    }

    #[test]
    fn whole_numbers_are_integers_and_large_ones_stay_exact() {
        let v: Value = serde_json::from_str("[2.0, -0.0, 1e3, 0.5, 18446744073709551615, 1e300]").unwrap();
        assert_eq!(text(&v), "[2,0,1000,0.5,18446744073709551615,1e+300]");
    }

    #[test]
    fn a_fraction_reads_back_as_the_number_it_was_written_as() {
        // The nearest float of this many digits is easily missed by one.
        let v: Value = serde_json::from_str("[184467440718446744073709551616e6, 0.1234567890123456789]").unwrap();
        let again: Value = serde_json::from_str(&text(&v)).unwrap();
        assert_eq!(text(&again), text(&v));
    }

    #[test]
    fn equal_values_have_equal_digests_and_others_do_not() {
        let a: Value = serde_json::from_str(r#"{"a":1,"b":2}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"b":2.0,"a":1}"#).unwrap();
        assert_eq!(digest(&a), digest(&b));
        assert_ne!(digest(&a), digest(&json!({"a": 1, "b": 3})));
    }

    proptest! {
        #[test]
        fn writing_what_was_read_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(v) = serde_json::from_slice::<Value>(&bytes) {
                let once = to_vec(&v);
                prop_assert_eq!(to_vec(&serde_json::from_slice(&once).unwrap()), once);
            }
        }
    }
}
