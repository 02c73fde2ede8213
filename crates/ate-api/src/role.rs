//! What a caller of the API is, in one word. What each role may do is decided by the control plane.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// From the least to the most powerful; `sandbox-admin` stands beside the template author, not above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Sees what there is in its spaces.
    Viewer,
    /// And creates, moves and deletes actors there, and reads their logs.
    ActorUser,
    /// And writes templates there.
    TemplateAuthor,
    /// Sees everything, and alone chooses which binaries run. Neither actors nor templates are its business.
    SandboxAdmin,
    /// Everything.
    Admin,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Viewer, Role::ActorUser, Role::TemplateAuthor, Role::SandboxAdmin, Role::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::ActorUser => "actor-user",
            Role::TemplateAuthor => "template-author",
            Role::SandboxAdmin => "sandbox-admin",
            Role::Admin => "admin",
        }
    }

    /// Whether it may be limited to some atespaces and namespaces. The others look after what all spaces share.
    pub fn is_limited(self) -> bool {
        matches!(self, Role::Viewer | Role::ActorUser | Role::TemplateAuthor)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Role::ALL.into_iter().find(|r| r.as_str() == text).ok_or_else(|| {
            let all = Role::ALL.map(Role::as_str).join(", ");
            format!("there is no role {:?}; roles are {all}", text.chars().take(40).collect::<String>())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_read_back_from_their_text_on_the_command_line_and_in_the_store() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
        assert!("root".parse::<Role>().unwrap_err().contains("viewer, actor-user"));
    }
}
