//! Typed identifiers, so that an actor's id cannot be passed for a worker's.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The atespace that golden actors live in; users cannot create actors there.
pub const GOLDEN_ATESPACE: &str = "ate-golden";
/// The atespace and namespace used when the caller names none.
pub const DEFAULT_SPACE: &str = "default";
/// What every actor's host name ends with.
pub const ACTOR_DNS_SUFFIX: &str = "actors.resources.substrate.ate.dev";

/// A unique id that is never used again, also not by an object of the same name. A UUID in text form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Uid(String);

impl Uid {
    /// A new id; ids made later sort later.
    pub fn generate() -> Self {
        Uid(uuid::Uuid::now_v7().to_string())
    }

    /// Accepts exactly the canonical text form: paths and object keys are built from it.
    pub fn parse(s: &str) -> Option<Self> {
        let u = uuid::Uuid::try_parse(s).ok()?;
        (u.to_string() == s).then(|| Uid(s.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = String::deserialize(d)?;
        Uid::parse(&s).ok_or_else(|| serde::de::Error::custom("not a UUID in canonical text form"))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What people call an actor: its atespace and its name in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ActorName {
    pub atespace: String,
    pub name: String,
}

impl ActorName {
    pub fn new(atespace: impl Into<String>, name: impl Into<String>) -> Self {
        ActorName { atespace: atespace.into(), name: name.into() }
    }
}

impl fmt::Display for ActorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.atespace, self.name)
    }
}

/// A namespaced object: a template or a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectName {
    pub namespace: String,
    pub name: String,
}

impl ObjectName {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        ObjectName { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One worker: a seat for one actor at a time. Unique among all workers that ever were.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The fencing number of an activation: grows with each activation of one actor; 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Activation(pub u64);

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A sha256 in lower-case hex, checked on the way in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Digest(hex::encode(sha2::Sha256::digest(bytes)))
    }

    /// From a finished hash.
    pub fn from_bytes(hash: [u8; 32]) -> Self {
        Digest(hex::encode(hash))
    }

    /// 64 lower-case hex digits, with or without the prefix `sha256:`.
    pub fn parse(s: &str) -> Option<Self> {
        let s = s.strip_prefix("sha256:").unwrap_or(s);
        let ok = s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        ok.then(|| Digest(s.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Digest {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[a-f0-9]{64}$"})
    }
}

impl<'de> Deserialize<'de> for Digest {
    /// Without prefix, as it is written: one digest has one form in JSON.
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = String::deserialize(d)?;
        Digest::parse(&s)
            .filter(|digest| digest.as_str() == s)
            .ok_or_else(|| serde::de::Error::custom("not a sha256 as 64 lower-case hex digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_from_outside_are_checked_before_a_path_is_built_from_them() {
        for bad in ["\"../x\"", "\"\"", "\"0193A0B0-0000-7000-8000-000000000000\"", "1"] {
            assert!(serde_json::from_str::<Uid>(bad).is_err(), "{bad}");
        }
        let uid = Uid::generate();
        assert_eq!(serde_json::from_str::<Uid>(&serde_json::to_string(&uid).unwrap()).unwrap(), uid);
    }

    #[test]
    fn a_digest_has_one_form_in_json() {
        let digest = Digest::of(b"");
        assert_eq!(Digest::parse(&format!("sha256:{digest}")), Some(digest.clone()));
        assert!(serde_json::from_str::<Digest>(&format!("\"sha256:{digest}\"")).is_err());
        assert!(serde_json::from_str::<Digest>(&format!("\"{}\"", digest.as_str().to_uppercase())).is_err());
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{digest}\"")).unwrap(), digest);
    }
}
