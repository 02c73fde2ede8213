//! What an asset may be and where it may come from.

use ate_api::resource::sandbox_config::Asset;
use url::Url;

/// A plain file, put in place as it is.
pub const PLAIN: &str = "application/octet-stream";
/// A tar archive, perhaps compressed, unpacked into a directory.
pub const TAR: &str = "application/x-tar";
/// Every media type the node can put in place.
pub const MEDIA_TYPES: [&str; 2] = [PLAIN, TAR];
/// Where assets can be fetched from.
pub const SCHEMES: [&str; 5] = ["file", "http", "https", "s3", "gs"];

/// An asset's name: becomes part of a path and of messages.
pub fn is_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    name.len() <= 63 && name.bytes().all(inner) && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

/// Whether the node can fetch from this URL. A password in it would be written into every manifest.
pub fn check_url(text: &str) -> Result<(), String> {
    let schemes = || format!("must begin with one of {}", SCHEMES.map(|s| format!("{s}://")).join(", "));
    let url = Url::parse(text).map_err(|e| format!("not a URL ({e}); {}", schemes()))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(schemes());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a user or password: every snapshot made with it would".to_owned());
    }
    match (url.scheme(), url.host_str().unwrap_or_default(), url.path()) {
        ("file", "", path) if path.len() > 1 => Ok(()),
        ("file", ..) => Err("must be file:///ABSOLUTE/PATH".to_owned()),
        (_, "", _) => Err("names no host or bucket".to_owned()),
        (.., "" | "/") => Err("names no file".to_owned()),
        _ => Ok(()),
    }
}

/// The media type an asset has when it says none: the first the class takes.
pub(crate) fn media_type<'a>(asset: &'a Asset, requirement: &'a crate::AssetRequirement) -> &'a str {
    let default = || requirement.media_types.first().map_or(PLAIN, String::as_str);
    asset.media_type.as_deref().unwrap_or_else(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assets_come_from_files_servers_and_buckets() {
        for good in ["file:///a/b", "http://h/x", "https://h:8443/x?y=1", "s3://bucket/key", "gs://bucket/a/b"] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_fetched_or_holds_a_password_is_refused() {
        for (bad, says) in [
            ("", "not a URL"),
            ("/usr/bin/runsc", "not a URL"),
            ("ftp://h/x", "file://"),
            ("file://host/x", "ABSOLUTE"),
            ("file:///", "ABSOLUTE"),
            ("https://user:secret@h/x", "password"),
            ("s3:///key", "bucket"),
            ("s3://bucket", "names no file"),
        ] {
            let message = check_url(bad).unwrap_err();
            assert!(message.contains(says) && !message.contains("secret"), "{bad}: {message}");
        }
    }

    #[test]
    fn names_cannot_leave_a_directory() {
        assert!(is_name("runsc") && is_name("kernel-6.1_x"));
        for bad in ["", ".", "..", ".x", "a/b", "-a", "a\0"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
