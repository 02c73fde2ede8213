//! Which image references a template may name.

/// Longest reference in bytes: a path of the length Linux allows.
const MAX_IMAGE: usize = 4096;
/// Longest tag (OCI distribution specification).
const MAX_TAG: usize = 128;
/// Forms that are read from this machine's disk.
const LOCAL_FORMS: [&str; 3] = ["oci", "docker-archive", "oci-archive"];

/// Accepts `…@DIGEST` as the CRD does. Ours: local forms with an absolute path, and a registry reference with a tag.
pub fn check(image: &str) -> Result<(), String> {
    if image.is_empty() {
        return Err("empty".to_owned());
    }
    if image.len() > MAX_IMAGE {
        return Err(format!("{} bytes are more than the {MAX_IMAGE} allowed", image.len()));
    }
    if image.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("has white space or control characters".to_owned());
    }
    if let Some((form, path)) = image.split_once(':').filter(|(form, _)| LOCAL_FORMS.contains(form)) {
        return match path.starts_with('/') && path.len() > 1 {
            true => Ok(()),
            false => Err(format!("the path after {form}: must be absolute, for example {form}:/srv/images/web:v1")),
        };
    }
    if image.contains('@') || has_tag(image) {
        return Ok(());
    }
    Err("says no version: end it with a digest (@sha256:…) or a tag (:v1)".to_owned())
}

/// `[HOST[:PORT]/]PATH:TAG`.
fn has_tag(image: &str) -> bool {
    let Some((name, tag)) = image.rsplit_once(':') else { return false };
    let tag_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let name_char = |b: u8| tag_char(b) || matches!(b, b'/' | b':');
    let tag_ok = !tag.is_empty() && tag.len() <= MAX_TAG && tag.bytes().all(tag_char) && !tag.starts_with(['.', '-']);
    tag_ok && !name.is_empty() && name.bytes().all(name_char) && name.split('/').all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_names_its_content_is_accepted() {
        for good in [
            "registry.example/team/web@sha256:0000",
            "web:v1",
            "127.0.0.1:5000/team/web:v1.2_3-x",
            "oci:/srv/web",
            "oci:/srv/web:v1",
            "docker-archive:/srv/web.tar:web:v1",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_what_to_write() {
        for (bad, says) in [
            ("", "empty"),
            ("busybox", "tag"),
            ("localhost:5000/web", "tag"),
            ("web:", "tag"),
            ("/web:v1", "tag"),
            ("a//b:v1", "tag"),
            ("we b:v1", "white space"),
            ("oci:images/web", "absolute"),
            ("oci:", "absolute"),
            ("docker-archive:web.tar", "absolute"),
        ] {
            assert!(check(bad).unwrap_err().contains(says), "{bad}");
        }
        assert!(check(&"x".repeat(5000)).is_err());
    }
}
