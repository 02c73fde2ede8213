//! Which class a template runs in and which configuration a pool uses, and which rule decided.

use ate_api::{
    Error, Reason,
    id::ObjectName,
    resource::{Choice, Rule, template},
};

use crate::config::list;

/// The class of a template: its own word, else its atespace's default, else the cluster's, else the built-in one.
///
/// `atespace` is the name of the atespace and its default, `cluster` the configuration that stands for the default of
/// the cluster and its class. Whether the class is registered is [`crate::Registry::get`]'s to say.
pub fn class(template: Option<&str>, atespace: Option<(&str, &str)>, cluster: Option<(&str, &str)>) -> Choice {
    match (template, atespace, cluster) {
        (Some(name), ..) => Choice::new(name, Rule::Template, "the template names it"),
        (None, Some((atespace, name)), _) => {
            Choice::new(name, Rule::AtespaceDefault, format!("it is the default of atespace {atespace}"))
        }
        (None, None, Some((config, name))) => {
            let why = format!("it is the default of the cluster, for which SandboxConfig {config} stands");
            Choice::new(name, Rule::ClusterDefault, why)
        }
        (None, None, None) => {
            let why = "it is the built-in default: nothing else says anything";
            Choice::new(template::default_class(), Rule::BuiltIn, why)
        }
    }
}

/// A `SandboxConfig`, as far as the choice needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    pub name: &'a str,
    pub class: &'a str,
    pub default: bool,
}

/// The configuration of a pool: the one it names, else the default of its class.
///
/// # Errors
/// `NO_SANDBOX_CONFIG`, naming the candidates, if the named one is absent or of another class, or if the class has
/// no default or several.
pub fn config<'a>(
    pool: &ObjectName,
    class: &str,
    named: Option<&str>,
    configs: impl IntoIterator<Item = Candidate<'a>>,
) -> Result<Choice, Error> {
    let configs: Vec<_> = configs.into_iter().collect();
    let of_class: Vec<_> = configs.iter().filter(|c| c.class == class).collect();
    let names: Vec<_> = of_class.iter().map(|c| c.name).collect();
    let defaults: Vec<_> = of_class.iter().filter(|c| c.default).map(|c| c.name).collect();
    let fail = |message: String, hint: String| {
        Err(Error::new(Reason::NoSandboxConfig, message).on(format!("workerpool/{pool}")).hint(hint))
    };
    if let Some(named) = named {
        return match configs.iter().find(|c| c.name == named) {
            Some(c) if c.class == class => Ok(Choice::new(named, Rule::Pool, format!("pool {pool} names it"))),
            Some(c) => fail(
                format!("SandboxConfig {named} is of class {}, but the pool is of class {class}", c.class),
                format!("configurations of class {class}: {}", list(&names)),
            ),
            None => fail(
                format!("there is no SandboxConfig {named}"),
                format!("configurations of class {class}: {}", list(&names)),
            ),
        };
    }
    match defaults.as_slice() {
        [one] => Ok(Choice::new(*one, Rule::ClassDefault, format!("it is the default of class {class}"))),
        [] if names.is_empty() => fail(
            format!("there is no SandboxConfig of class {class}"),
            format!("apply one, for example with `ate sandbox import --class {class}`"),
        ),
        [] => fail(
            format!("no SandboxConfig of class {class} is its default; there are {}", list(&names)),
            "`ate sandbox set-default-config NAME` makes one the default, or name one in the pool's spec.sandboxConfigName".to_owned(),
        ),
        several => fail(
            format!("{} are all the default of class {class}", list(several)),
            "leave spec.default: true in one of them, or name one in the pool's spec.sandboxConfigName".to_owned(),
        ),
    }
}

/// The configurations of a class that call themselves its default, except the one being written. When a second would
/// become default the write is refused, or the first must step back: never both.
pub fn other_defaults<'a>(name: &str, class: &str, configs: impl IntoIterator<Item = Candidate<'a>>) -> Vec<&'a str> {
    let other = |c: &Candidate<'_>| c.default && c.class == class && c.name != name;
    configs.into_iter().filter(other).map(|c| c.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> ObjectName {
        ObjectName::new("default", "p")
    }

    fn candidate(name: &'static str, class: &'static str, default: bool) -> Candidate<'static> {
        Candidate { name, class, default }
    }

    #[test]
    fn the_nearest_word_on_the_class_counts() {
        let (space, cluster) = (Some(("x", "b")), Some(("config", "c")));
        for (template, atespace, cluster, name, rule, why) in [
            (Some("a"), space, cluster, "a", Rule::Template, "template"),
            (None, space, cluster, "b", Rule::AtespaceDefault, "atespace x"),
            (None, None, cluster, "c", Rule::ClusterDefault, "SandboxConfig config"),
            (None, None, None, "gvisor", Rule::BuiltIn, "built-in"),
        ] {
            let choice = class(template, atespace, cluster);
            assert_eq!((choice.name.as_str(), choice.rule), (name, rule));
            assert!(choice.why.contains(why), "{choice:?}");
        }
    }

    #[test]
    fn a_pool_gets_what_it_names_or_the_default_of_its_class() {
        let all = [candidate("old", "g", false), candidate("new", "g", true), candidate("vm", "m", true)];
        assert_eq!(config(&pool(), "g", None, all).unwrap().name, "new");
        assert_eq!(config(&pool(), "g", Some("old"), all).unwrap().name, "old");
        assert_eq!(config(&pool(), "m", None, all).unwrap().name, "vm");
    }

    #[test]
    fn when_no_configuration_can_be_chosen_the_error_names_the_candidates() {
        let (a, b) = (candidate("a", "g", false), candidate("b", "g", false));
        let (a1, b1, vm) = (candidate("a", "g", true), candidate("b", "g", true), candidate("vm", "m", true));
        for (named, configs, says) in [
            (None, vec![], "no SandboxConfig of class g"),
            (None, vec![vm], "no SandboxConfig of class g"),
            (None, vec![a, b], "there are a, b"),
            (None, vec![a1, b1], "a, b are all the default"),
            (Some("vm"), vec![a, vm], "is of class m"),
            (Some("c"), vec![a, vm], "no SandboxConfig c"),
        ] {
            let e = config(&pool(), "g", named, configs).unwrap_err();
            assert_eq!((e.reason, e.object.as_str()), (Reason::NoSandboxConfig, "workerpool/default/p"));
            assert!(e.message.contains(says) && !e.hint.is_empty(), "{e:?}");
        }
    }

    #[test]
    fn a_second_default_is_seen_when_it_is_written() {
        let all = [candidate("a", "g", true), candidate("b", "g", false), candidate("vm", "m", true)];
        assert_eq!(other_defaults("b", "g", all), ["a"]);
        assert!(other_defaults("a", "g", all).is_empty());
    }
}
