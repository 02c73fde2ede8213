//! Images of a template's author whose layers try to leave their directory, or to fill the disk.

use std::fs;

use super::{Range, Stopped, Table, archives::up_to, tar::Tar};
use crate::{Template, image};

pub(super) const ATTACKS: Table = &[
    ("an image layer with a name that leads out", |r| {
        let way_out = up_to(r);
        refused(r, "escaping", Tar::default().file(&way_out, b"escaped"))
    }),
    ("an image layer with a hard link to a file of the node", |r| {
        let secret = format!("../../../../../../../..{}/lock", r.data().display());
        refused(r, "linking", Tar::default().hard_link("secret", &secret))
    }),
    ("an image layer that is a bomb", |r| refused(r, "bomb", Tar::default().sparse("bomb", 1 << 40))),
];

fn refused(range: &mut Range, name: &str, layer: Tar) -> Stopped {
    let dir = range.dir().join(name);
    fs::create_dir(&dir).expect("a directory for the image");
    let image = image::of_layer(&dir, &layer.bytes());
    range.apply(&Template::default().image(image).yaml(name)).ok();
    let stopped = range.told("template", name, "IMAGE_INVALID");
    range.actor(name, name);
    range.refuses(name, "TEMPLATE_NOT_READY", 6);
    range.ate(&["delete", "actor", name]).ok();
    range.ate(&["delete", "template", name]).ok();
    stopped
}
