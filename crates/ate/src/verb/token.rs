//! `ate token`: credentials for callers that are not root on the server's machine.

use std::time::Duration;

use ate_api::{Error, Reason, role::Role, v1::CreateTokenRequest};
use clap::{Args, Subcommand};

use super::get::Get;
use crate::{
    cli::{Global, Spaces},
    client::{Client, timed},
    failure::{Outcome, Trying as _},
    kind::Kind,
    show::{Output, print},
    target::Target,
};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Long enough not to be in the way, short enough that one that is lost is not lost for ever.
const DEFAULT_TTL: &str = "30d";

/// Let others use the API.
#[derive(Subcommand)]
pub(crate) enum Token {
    Create(Create),
    /// Show the tokens there are, without their secrets: the same as `ate get tokens`.
    #[command(after_help = "Examples:
  ate token list
  ate token list -o yaml")]
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Make tokens count no more, from now on and everywhere.
    #[command(after_help = "Examples:
  ate token revoke ci")]
    Revoke {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Make a token and print it.
///
/// It is shown this once: the server keeps nothing but its hash. A token of role viewer, actor-user or template-author
/// counts in the atespaces (-a) and namespaces (-n) named, several separated by commas, or in all of them (-A); one of role
/// sandbox-admin or admin has no such limits. docs/access.md says what each role may do.
#[derive(Args)]
#[command(after_help = "Examples:
  ate token create ci --role actor-user -a team-a > ci.token
  ate token create --role template-author -a team-a,team-b -n team-a --ttl 12h
  ate token create watcher --role viewer -A
  ATE_TOKEN_FILE=ci.token ate --server http://127.0.0.1:7600 get actors -a team-a")]
pub(crate) struct Create {
    /// What it is called, in lists and in the audit log [default: the role and a random number].
    name: Option<String>,
    /// viewer, actor-user, template-author, sandbox-admin or admin.
    #[arg(long)]
    role: Role,
    /// How long it counts, for example 12h or 90d; 0 means for ever.
    #[arg(long, default_value = DEFAULT_TTL, value_parser = ttl, value_name = "TIME")]
    ttl: Duration,
}

impl Token {
    pub(crate) async fn run(self, global: &Global) -> Outcome {
        match self {
            Token::Create(create) => create.run(global).await,
            Token::List { output } => Get::all(Kind::Token, output).run(global).await,
            Token::Revoke { names } => {
                let client = Client::connect(&global.server).await?;
                for name in names {
                    let target = Target { kind: Kind::Token, space: String::new(), name: Some(name) };
                    match client.delete(&target, false).await {
                        Ok(()) => print(&format!("{target} revoked\n")),
                        Err(f) if f.reason() == Some(Reason::NotFound) => return Err(client.suggest(f, &target).await),
                        Err(f) => return Err(f),
                    }
                }
                Ok(())
            }
        }
    }
}

impl Create {
    async fn run(self, global: &Global) -> Outcome {
        let what = || match &self.name {
            Some(name) => format!("cannot create token/{name}"),
            None => "cannot create a token".to_owned(),
        };
        let request = self.request(&global.spaces).trying(what)?;
        let client = Client::connect(&global.server).await?;
        let place = place(&request);
        let made = client.tokens().create(timed(request, TIMEOUT)).await.trying(what)?.into_inner();
        let until = match self.ttl {
            Duration::ZERO => "for ever".to_owned(),
            ttl => format!("for {}", crate::show::human::age(ttl.as_secs().try_into().unwrap_or(i64::MAX))),
        };
        // Only the secret goes to stdout, so that it can go into a file.
        eprintln!("token/{} created: {}{place}, {until}; it is shown this once", made.name, self.role);
        print(&format!("{}\n", made.secret));
        Ok(())
    }

    fn request(&self, spaces: &Spaces) -> Result<CreateTokenRequest, Error> {
        if spaces.all && (spaces.atespace.is_some() || spaces.namespace.is_some()) {
            return Err(Error::new(Reason::Invalid, "-A means every space, so -a and -n say something else"));
        }
        // What was said is sent, so that the server refuses a limit that the role does not have, rather than passing
        // over it.
        let list = |said: Option<&str>, default: &str| -> Vec<String> {
            let assumed = self.role.is_limited() && !spaces.all;
            let names = said.or(assumed.then_some(default)).into_iter().flat_map(|names| names.split(','));
            names.map(|n| n.trim().to_owned()).collect()
        };
        Ok(CreateTokenRequest {
            name: self.name.clone().unwrap_or_default(),
            role: self.role.to_string(),
            atespaces: list(spaces.atespace.as_deref(), spaces.atespace()),
            namespaces: list(spaces.namespace.as_deref(), spaces.namespace()),
            every_space: spaces.all,
            ttl_seconds: self.ttl.as_secs(),
        })
    }
}

fn place(request: &CreateTokenRequest) -> String {
    match (request.atespaces.is_empty(), request.every_space) {
        (true, false) => String::new(),
        (_, true) => " everywhere".to_owned(),
        _ => {
            format!(" in atespaces {} and namespaces {}", request.atespaces.join(", "), request.namespaces.join(", "))
        }
    }
}

/// `90s`, `12h`, `30d`; `0` is for ever.
fn ttl(text: &str) -> Result<Duration, String> {
    let say = || "write 12h, 30d, or 0 for ever".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let ttl = match text.strip_suffix('d') {
        Some(days) => {
            let days: u32 = days.parse().map_err(|_| say())?;
            Duration::from_secs(u64::from(days) * 24 * 3600)
        }
        None => {
            let parsed: jiff::SignedDuration = text.parse().map_err(|_| say())?;
            Duration::try_from(parsed).map_err(|_| say())?
        }
    };
    // Whole seconds are sent, and none would mean for ever.
    if ttl.as_secs() == 0 { Err(say()) } else { Ok(ttl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_sent_as_it_was_said_whatever_the_role() {
        let spaces = |said: Option<&str>, all| Spaces { atespace: said.map(str::to_owned), namespace: None, all };
        let request = |role, spaces| Create { name: None, role, ttl: Duration::ZERO }.request(&spaces);
        let atespaces = |role, said| request(role, spaces(said, false)).unwrap().atespaces;
        assert_eq!(atespaces(Role::Viewer, None), ["default"]);
        assert_eq!(atespaces(Role::Viewer, Some("a, b")), ["a", "b"]);
        assert_eq!(atespaces(Role::Admin, Some("a")), ["a"]);
        assert!(atespaces(Role::Admin, None).is_empty());
        assert!(request(Role::Viewer, spaces(None, true)).unwrap().every_space);
        assert!(request(Role::Viewer, spaces(Some("a"), true)).is_err());
    }

    #[test]
    fn a_lifetime_is_never_for_ever_by_accident() {
        assert_eq!(ttl("30d"), Ok(Duration::from_secs(30 * 24 * 3600)));
        assert_eq!(ttl("12h"), Ok(Duration::from_secs(12 * 3600)));
        assert_eq!(ttl("0"), Ok(Duration::ZERO));
        for bad in ["0d", "0s", "100ms", "-1h", "soon", "", "d"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
