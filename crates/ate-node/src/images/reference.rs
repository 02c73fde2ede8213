//! Where an image comes from, as written in a template.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
};

use super::ImageError;

/// Longer than any real reference.
const MAX_REFERENCE: usize = 4096;

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// `oci:DIR[:TAG]`, an OCI image layout.
    Layout { dir: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`, a layout in a tar file.
    LayoutArchive { file: PathBuf, tag: Option<String> },
    /// `docker-archive:FILE[:TAG]`, what `docker save` writes.
    DockerArchive { file: PathBuf, tag: Option<String> },
    /// `[HOST[:PORT]/]REPOSITORY[:TAG][@sha256:…]`.
    Registry(oci_spec::distribution::Reference),
}

impl Reference {
    pub(super) fn parse(text: &str) -> Result<Self, ImageError> {
        if text.is_empty() || text.len() > MAX_REFERENCE || text.contains(|c: char| c.is_control()) {
            return Err(ImageError::not_found(text.escape_default(), "not an image reference"));
        }
        let local = |rest: &str| -> Result<(PathBuf, Option<String>), ImageError> {
            let (path, tag) = match rest.split_once(':') {
                Some((path, tag)) => (path, Some(tag)),
                None => (rest, None),
            };
            if !Path::new(path).is_absolute() {
                return Err(ImageError::not_found(text, "the path must be absolute"));
            }
            if tag == Some("") {
                return Err(ImageError::not_found(text, "the tag is empty"));
            }
            Ok((path.into(), tag.map(str::to_owned)))
        };
        match text.split_once(':') {
            Some(("oci", rest)) => local(rest).map(|(dir, tag)| Reference::Layout { dir, tag }),
            Some(("oci-archive", rest)) => local(rest).map(|(file, tag)| Reference::LayoutArchive { file, tag }),
            Some(("docker-archive", rest)) => local(rest).map(|(file, tag)| Reference::DockerArchive { file, tag }),
            _ => {
                let text = text.strip_prefix("docker://").unwrap_or(text);
                let parsed = text.parse::<oci_spec::distribution::Reference>();
                let parsed = parsed.map_err(|e| ImageError::not_found(text, e))?;
                // A first part with capitals passes for a host and is then taken for a repository, which has none.
                match parsed.whole().parse() {
                    Ok(again) if parsed == again => Ok(Reference::Registry(parsed)),
                    _ => Err(ImageError::not_found(text, "not an image reference")),
                }
            }
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut local = |scheme: &str, path: &Path, tag: &Option<String>| {
            write!(f, "{scheme}:{}", path.display())?;
            tag.iter().try_for_each(|t| write!(f, ":{t}"))
        };
        match self {
            Reference::Layout { dir, tag } => local("oci", dir, tag),
            Reference::LayoutArchive { file, tag } => local("oci-archive", file, tag),
            Reference::DockerArchive { file, tag } => local("docker-archive", file, tag),
            Reference::Registry(r) => f.write_str(&r.whole()),
        }
    }
}

/// Whether a registry is on this machine: only then is it spoken to without TLS.
pub(super) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _port)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_say_where_an_image_comes_from() {
        let layout = Reference::parse("oci:/srv/counter:v1").unwrap();
        assert_eq!(layout, Reference::Layout { dir: "/srv/counter".into(), tag: Some("v1".into()) });
        assert_eq!(layout.to_string(), "oci:/srv/counter:v1");
        // Tools write whole names as the tag of a layout.
        let Reference::Layout { tag, .. } = Reference::parse("oci:/srv/c:localhost/counter:v1").unwrap() else {
            panic!("not a layout")
        };
        assert_eq!(tag.as_deref(), Some("localhost/counter:v1"));
        assert!(matches!(Reference::parse("docker-archive:/a.tar").unwrap(), Reference::DockerArchive { .. }));
        let Reference::Registry(r) = Reference::parse("127.0.0.1:5000/team/app:2").unwrap() else {
            panic!("not a registry")
        };
        assert_eq!((r.registry(), r.repository(), r.tag()), ("127.0.0.1:5000", "team/app", Some("2")));
    }

    #[test]
    fn references_that_mean_nothing_are_refused() {
        for bad in
            ["", "oci:relative/dir", "oci:", "oci:/dir:", "Not An Image", "Team/app:v1", "a\nb", &"x".repeat(5000)]
        {
            assert!(matches!(Reference::parse(bad), Err(ImageError::NotFound { .. })), "{bad}");
        }
    }

    #[test]
    fn only_registries_on_this_machine_may_go_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "127.3.2.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["docker.io", "localhost.example.org", "127.0.0.1.example.org:80", "10.0.0.1:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
