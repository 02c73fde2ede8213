//! Who a container runs as: the `user` of an image, looked up in the image's own user database.

use std::{
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::FileType;

use super::merged::{Child, MergedDir};
use crate::unpack::{Tree, UnpackError, invalid};

/// A user database of an image has some dozen lines.
const MAX_FILE: u64 = 1 << 20;
/// The kernel's own limit (NGROUPS_MAX).
const MAX_GROUPS: usize = 65536;

/// A user as the kernel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// For `HOME`; `/` if the image does not know the user.
    pub home: String,
}

/// Resolves `""`, `uid`, `uid:gid`, `name`, `name:group` in any mixture. Blocking.
pub(super) fn resolve(layers: &[PathBuf], spec: &str) -> Result<User, UnpackError> {
    let mut dirs = Vec::new();
    for layer in layers.iter().rev() {
        dirs.push(Arc::new(Tree::open(layer)?.dir(Path::new(""))?));
    }
    let root = MergedDir::new(dirs);
    lookup(spec, &read(&root, "etc/passwd")?, &read(&root, "etc/group")?)
}

/// A text file of the image; empty when it has none. Symlinks are followed inside the image.
fn read(root: &MergedDir, path: &str) -> Result<String, UnpackError> {
    let Some(Child::Other(file, stat)) = root.resolve(Path::new(path), true)?.child else {
        return Ok(String::new());
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(invalid(format!("/{path} is not a regular file")));
    }
    let mut bytes = Vec::new();
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid(format!("/{path} is larger than {MAX_FILE} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(super) fn lookup(spec: &str, passwd: &str, group: &str) -> Result<User, UnpackError> {
    let (user, wanted_group) = match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (spec, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    // name:password:uid:gid:comment:home:shell
    let number: Option<u32> = user.parse().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|f| f.len() >= 6)
        .find(|f| f[0] == user || number.is_some_and(|n| f[2].parse() == Ok(n)));
    let mut found = User { home: "/".into(), ..User::default() };
    match (&entry, number) {
        (Some(f), _) => {
            let id = |text: &str| text.parse().map_err(|_| invalid(format!("bad line of user {user} in /etc/passwd")));
            (found.uid, found.gid) = (id(f[2])?, id(f[3])?);
            if f[5].starts_with('/') {
                found.home = f[5].to_owned();
            }
        }
        (None, Some(uid)) => found.uid = uid,
        (None, None) => return Err(invalid(format!("no user {user:?} in /etc/passwd"))),
    }
    // name:password:gid:member,member
    let groups = || group.lines().map(|l| l.split(':').collect::<Vec<_>>()).filter(|f| f.len() >= 4);
    match wanted_group {
        Some(wanted) => {
            let number: Option<u32> = wanted.parse().ok();
            let entry = groups().find(|f| f[0] == wanted).and_then(|f| f[2].parse().ok());
            found.gid = entry.or(number).ok_or_else(|| invalid(format!("no group {wanted:?} in /etc/group")))?;
        }
        // As container tools do: an explicit group stands alone, otherwise memberships count.
        None => {
            let name = entry.as_ref().map_or(user, |f| f[0]);
            let member = groups().filter(|f| f[3].split(',').any(|m| m == name));
            found.additional_gids = member.filter_map(|f| f[2].parse().ok()).take(MAX_GROUPS).collect();
            found.additional_gids.retain(|gid| *gid != found.gid);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\nodd:x:-:0::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:app,other\napp:x:1001:\ndisk:x:6:root\n";

    fn user(spec: &str) -> Result<User, UnpackError> {
        lookup(spec, PASSWD, GROUP)
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let app = User { uid: 1000, gid: 1001, additional_gids: vec![50], home: "/home/app".into() };
        assert_eq!(user("app").unwrap(), app);
        assert_eq!(user("1000").unwrap(), app);
        let root = User { uid: 0, gid: 0, additional_gids: vec![6], home: "/root".into() };
        assert_eq!(user("").unwrap(), root);
    }

    #[test]
    fn an_explicit_group_stands_alone() {
        assert_eq!(
            user("app:staff").unwrap(),
            User { uid: 1000, gid: 50, additional_gids: vec![], home: "/home/app".into() }
        );
        assert_eq!(user("7:8").unwrap(), User { uid: 7, gid: 8, additional_gids: vec![], home: "/".into() });
    }

    #[test]
    fn a_number_needs_no_user_database_but_a_name_does() {
        assert_eq!(lookup("4242", "", "").unwrap().uid, 4242);
        for bad in ["nobody", "app:nogroup", "odd", "-1", "4294967296"] {
            assert!(matches!(user(bad), Err(UnpackError::Invalid(_))), "{bad}");
        }
    }
}
