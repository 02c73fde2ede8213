//! Variables whose values are in secrets. They are read when an actor starts from its images, and only then: whoever is
//! restored has its environment in its memory. A value goes into the workload that a herder is given, and nowhere else: not
//! into errors, logs, records, manifests or digests.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use ate_agent::Template;
use ate_api::{
    Error, Reason,
    resource::template::{EnvVar, SecretKeyRef},
};

/// What Linux takes as one `NAME=value` with the zero behind it.
const MAX_VARIABLE: usize = 128 << 10;
/// Values of a template together: as much as one secret holds, and well below what a message to a herder or a guest takes.
const MAX_VALUES: usize = 1 << 20;

/// The values of a secret, by key.
pub type SecretData = BTreeMap<String, Vec<u8>>;

/// Where secrets are.
#[async_trait::async_trait]
pub trait Secrets: fmt::Debug + Send + Sync {
    /// All of a secret, so that what belongs together is of one time. None: there is none of that name.
    ///
    /// # Errors
    /// Say what may be shown to the template's users: never a value. `SECRET_UNAVAILABLE` if somebody has to act first.
    async fn read(&self, namespace: &str, name: &str) -> Result<Option<SecretData>, Error>;
}

/// What variables from secrets become.
pub(crate) enum Values {
    /// There are no secrets: a variable that has to be there is refused.
    Nowhere,
    /// Nobody is going to read them.
    Unread,
    Read(Found),
}

/// Values by secret and key; those of optional ones that are missing are missing here too.
#[derive(Default)]
pub(crate) struct Found(HashMap<(String, String), String>);

impl Found {
    pub(crate) fn get(&self, secret: &SecretKeyRef) -> Option<&str> {
        self.0.get(&(secret.name.clone(), secret.key.clone())).map(String::as_str)
    }
}

pub(crate) fn are_named_by(template: &Template) -> bool {
    variables(template).next().is_some()
}

/// Everything that the template's variables need. Each secret is read once.
pub(crate) async fn read(secrets: &dyn Secrets, template: &Template) -> Result<Values, Error> {
    let (mut found, mut known, mut size) = (Found::default(), HashMap::new(), 0);
    for (var, secret) in variables(template) {
        let refused = |e| refused(template, var, secret, e);
        let data = match known.get(&secret.name) {
            Some(data) => data,
            None => {
                let data = secrets.read(&template.name.namespace, &secret.name).await.map_err(refused)?;
                known.entry(&secret.name).or_insert(data)
            }
        };
        match data.as_ref().map(|data| data.get(&secret.key)) {
            Some(Some(value)) => {
                let value = text(&var.name, value).map_err(refused)?;
                size += value.len();
                if size > MAX_VALUES {
                    return Err(refused(too_many()));
                }
                found.0.insert((secret.name.clone(), secret.key.clone()), value);
            }
            None | Some(None) if secret.optional == Some(true) => {}
            None => return Err(refused(no_secret(&template.name.namespace, secret))),
            Some(None) => return Err(refused(no_key(secret))),
        }
    }
    Ok(Values::Read(found))
}

fn variables(template: &Template) -> impl Iterator<Item = (&EnvVar, &SecretKeyRef)> {
    let all = template.spec.containers.iter().flat_map(|c| &c.env).filter(|var| var.value.is_none());
    all.filter_map(|var| Some((var, &var.value_from.as_ref()?.secret_key_ref)))
}

/// A value as a program can find it in its environment.
fn text(variable: &str, value: &[u8]) -> Result<String, Error> {
    let unusable = |why: String| {
        Error::new(Reason::SecretUnavailable, why)
            .hint("keep a text in the secret (encode what is none, base64 for instance), or name another key")
    };
    let size = variable.len() + "=".len() + value.len() + "\0".len();
    if size > MAX_VARIABLE {
        let most = MAX_VARIABLE - (size - value.len());
        return Err(unusable(format!("its value has {} bytes, and the variable takes {most}", value.len())));
    }
    // What the decoder says of the bytes is left out.
    let text = std::str::from_utf8(value).map_err(|_| unusable("its value is not UTF-8".to_owned()))?;
    if text.contains('\0') {
        return Err(unusable("its value contains a zero byte".to_owned()));
    }
    Ok(text.to_owned())
}

fn too_many() -> Error {
    let message = format!("with it the template's values from secrets have more than {MAX_VALUES} bytes");
    Error::new(Reason::SecretUnavailable, message).hint("let the actor fetch what is large")
}

fn no_secret(namespace: &str, secret: &SecretKeyRef) -> Error {
    let SecretKeyRef { name, key, .. } = secret;
    Error::new(Reason::SecretUnavailable, format!("there is no such secret in namespace `{namespace}`")).hint(format!(
        "create it: kubectl -n {namespace} create secret generic {name} --from-file={key}=FILE; or mark it `optional`"
    ))
}

fn no_key(secret: &SecretKeyRef) -> Error {
    Error::new(Reason::SecretUnavailable, "the secret has no such key")
        .hint(format!("add key `{}` to secret `{}`, name another, or mark it `optional`", secret.key, secret.name))
}

/// The golden actor, for which most are read, says nothing to anybody: so the message names the template.
fn refused(template: &Template, var: &EnvVar, secret: &SecretKeyRef, e: Error) -> Error {
    let message = format!(
        "variable `{}` of template `{}` comes from key `{}` of secret `{}`: {}",
        var.name, template.name, secret.key, secret.name, e.message
    );
    Error { message, object: format!("template/{}", template.name), ..e }
}

#[cfg(test)]
mod tests;
