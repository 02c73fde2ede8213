//! Where one snapshot lies: a location and a place below it made of nothing but a uid and two numbers.

use std::{fmt, str::FromStr};

use ate_api::id::{Activation, Uid};
use url::Url;

use crate::{Error, manifest::ENCODING_ZSTD};

/// A URL that says where snapshots go, checked: `file:///DIR`, `s3://BUCKET[/PATH]` or `gs://BUCKET[/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Location(String);

impl Location {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |problem: &str| Error::Location { location: text.to_owned(), problem: problem.to_owned() };
        let text = text.trim_end_matches('/');
        let url = Url::parse(text).map_err(|e| refuse(&e.to_string()))?;
        match (url.scheme(), url.host_str()) {
            ("file", None) => {
                url.to_file_path().map_err(|()| refuse("it names no folder"))?;
            }
            ("s3" | "gs", Some(_)) if url.path().contains('%') => return Err(refuse("it has escaped characters")),
            ("s3" | "gs", Some(_)) => {}
            ("file", Some(_)) => return Err(refuse("write file:/// with three slashes")),
            _ => return Err(refuse("it must begin with file:///, s3://BUCKET or gs://BUCKET")),
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.port().is_some() {
            return Err(refuse("it may have a path and nothing more"));
        }
        // What the URL rules rewrite (`..`, `.`, escapes, capitals) would name the same place in two ways.
        if url.as_str().trim_end_matches('/') != text || url.path().contains("//") {
            return Err(refuse(&format!("write it in its plain form, {}", url.as_str())));
        }
        Ok(Location(text.to_owned()))
    }

    pub(super) fn url(&self) -> Url {
        Url::parse(&self.0).expect("it was parsed before")
    }

    pub(super) fn is_folder(&self) -> bool {
        self.0.starts_with("file:")
    }

    /// Whether it is the other or lies below it.
    pub(super) fn is_within(&self, other: &Location) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of one snapshot. Its text form is a URL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prefix {
    pub(super) location: Location,
    actor: Uid,
    generation: u64,
    activation: Activation,
}

impl Prefix {
    pub(super) fn new(location: Location, actor: &Uid, generation: u64, activation: Activation) -> Self {
        Prefix { location, actor: actor.clone(), generation, activation }
    }

    /// From the last two parts of the place, as [`Prefix::parts`] has them.
    pub(super) fn from_parts(location: &Location, actor: &str, numbers: &str) -> Option<Self> {
        let (generation, activation) = numbers.split_once('-')?;
        let (generation, activation) = (generation.parse().ok()?, Activation(activation.parse().ok()?));
        let prefix = Prefix::new(location.clone(), &Uid::parse(actor)?, generation, activation);
        // Only the form we write: no signs, no other number of zeros.
        (prefix.parts()[2] == numbers).then_some(prefix)
    }

    /// The place below the location, part by part.
    pub(super) fn parts(&self) -> [String; 3] {
        let numbers = format!("{:08}-{}", self.generation, self.activation);
        ["actors".to_owned(), self.actor.to_string(), numbers]
    }

    /// How files are stored there: compressed in a bucket, as they are in a folder, where they are linked.
    pub fn encoding(&self) -> Option<&'static str> {
        (!self.location.is_folder()).then_some(ENCODING_ZSTD)
    }

    pub fn actor(&self) -> &Uid {
        &self.actor
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn activation(&self) -> Activation {
        self.activation
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.location, self.parts().join("/"))
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::Location {
            location: text.to_owned(),
            problem: "a snapshot prefix ends in actors/UID/GENERATION-ACTIVATION".to_owned(),
        };
        let mut parts = text.rsplitn(4, '/');
        let (Some(numbers), Some(actor), Some("actors"), Some(location)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        let prefix = Prefix::from_parts(&Location::parse(location)?, actor, numbers).ok_or_else(refuse)?;
        if prefix.to_string() == text { Ok(prefix) } else { Err(refuse()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0190a6f4-7e3c-7c3e-8a55-3f1f3a3c5b11";

    #[test]
    fn a_prefix_reads_back_from_its_url() {
        for location in ["file:///var/lib/ate", "s3://bucket", "gs://bucket/some/path", "file:///a%20b"] {
            let location = Location::parse(location).unwrap();
            let prefix = Prefix::new(location, &Uid::parse(UID).unwrap(), 7, Activation(12));
            assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
            assert!(prefix.to_string().ends_with(&format!("/actors/{UID}/00000007-12")));
        }
    }

    #[test]
    fn a_location_lies_within_another_only_by_whole_names() {
        let within = |a: &str, b: &str| Location::parse(a).unwrap().is_within(&Location::parse(b).unwrap());
        assert!(within("file:///data/objects", "file:///data/objects"));
        assert!(within("file:///data/objects/team", "file:///data/objects"));
        assert!(!within("file:///data/objects-of-others", "file:///data/objects"));
        assert!(!within("file:///etc", "file:///data/objects"));
    }

    #[test]
    fn a_location_that_leaves_its_place_or_is_not_plain_is_refused() {
        for bad in [
            "",
            "default",
            "/var/lib",
            "relative/x",
            "http://host/x",
            "file://host/x",
            "file:///a/../etc",
            "file:///a/%2e%2e/etc",
            "file:///a//b",
            "file:///a b",
            "s3:///x",
            "s3://bucket/../other",
            "s3://bucket/a/%2e%2e",
            "s3://user@bucket/x",
            "s3://bucket:80/x",
            "s3://bucket/x?versionId=1",
            "gs://bucket/x#y",
        ] {
            assert!(matches!(Location::parse(bad), Err(Error::Location { .. })), "{bad}");
        }
    }

    #[test]
    fn a_prefix_in_any_other_form_is_refused() {
        for bad in [
            format!("file:///x/actors/{UID}/../00000001-1"),
            format!("file:///x/actors/{UID}/1-1"),
            format!("file:///x/actors/{UID}/00000001-+1"),
            format!("file:///x/actors/{UID}/00000001-1/"),
            format!("file:///x/others/{UID}/00000001-1"),
            format!("file:///x/../y/actors/{UID}/00000001-1"),
            "file:///x/actors/../00000001-1".to_owned(),
            String::new(),
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
