//! The one place that says who may see what.

use dormouse_api::registry::login::Role;
use dormouse_api::{Code, Problem};

use super::token::Claims;
use crate::names::{self, ServerName};
use crate::registry::servers;
use crate::store::Scope;

/// Who asks: what a verified token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub subject: String,
    pub role: Role,
    tenant: Option<String>,
    node: Option<String>,
}

impl Caller {
    /// `None`: a tenant's or a node's token that doesn't say whose.
    pub fn of(claims: Claims) -> Option<Self> {
        let complete = match claims.role {
            Role::Tenant => claims.tenant.as_deref().is_some_and(names::is_tenant),
            Role::Node => claims.node.is_some(),
            Role::Operator | Role::Service => true,
        };
        let Claims { sub, role, tenant, node, .. } = claims;
        complete.then_some(Self { subject: sub, role, tenant, node })
    }

    /// What the database shows to this caller.
    pub fn scope(&self) -> Scope {
        match (&self.role, &self.tenant) {
            (Role::Tenant, Some(tenant)) => Scope::Tenant(tenant.clone()),
            _ => Scope::Region,
        }
    }

    /// Tenants, for their own, and operators.
    pub fn manages(&self) -> Result<(), Problem> {
        match self.role {
            Role::Tenant | Role::Operator => Ok(()),
            Role::Node | Role::Service => Err(self.forbidden("a tenant or an operator")),
        }
    }

    pub fn operates(&self) -> Result<(), Problem> {
        if self.role == Role::Operator { Ok(()) } else { Err(self.forbidden("an operator")) }
    }

    /// Services and operators.
    pub fn serves(&self) -> Result<(), Problem> {
        match self.role {
            Role::Operator | Role::Service => Ok(()),
            Role::Tenant | Role::Node => Err(self.forbidden("a service or an operator")),
        }
    }

    /// The node itself.
    pub fn is_node(&self, name: &str) -> Result<(), Problem> {
        match (&self.role, &self.node) {
            (Role::Node, Some(node)) if node == name => Ok(()),
            _ => Err(self.forbidden(&format!("the node {name} itself"))),
        }
    }

    /// The server's tenant and operators. To all others it doesn't exist: a refusal would tell that it does.
    pub fn sees(&self, server: &ServerName) -> Result<(), Problem> {
        self.manages()?;
        match self.scope().tenant() {
            Some(own) if own != server.tenant => Err(servers::no_such(server)),
            _ => Ok(()),
        }
    }

    /// As [`Self::sees`], for the tenant as such.
    pub fn sees_tenant(&self, tenant: &str) -> Result<(), Problem> {
        self.manages()?;
        match self.scope().tenant() {
            Some(own) if own != tenant => Err(no_such_tenant(tenant)),
            _ => Ok(()),
        }
    }

    /// The tenant that a list is about: one's own, or the one that was asked for; `None`: all.
    pub fn lists(&self, asked: Option<&str>) -> Result<Option<String>, Problem> {
        self.manages()?;
        match (self.scope().tenant(), asked) {
            (Some(own), Some(asked)) if own != asked => Err(no_such_tenant(asked)),
            (Some(own), _) => Ok(Some(own.to_owned())),
            (None, asked) => asked.map(|tenant| names::tenant("tenant", tenant)).transpose(),
        }
    }

    fn forbidden(&self, who: &str) -> Problem {
        let detail = format!("this needs {who}; the token's role is {}", self.role.name());
        Problem::new(Code::Forbidden, detail)
    }
}

pub fn no_such_tenant(tenant: &str) -> Problem {
    Problem::new(Code::NotFound, format!("no tenant is called {tenant}"))
        .with_remedy("`dormouse tenants list` lists them, `dormouse tenants add` adds one")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role, tenant: Option<&str>, node: Option<&str>) -> Option<Caller> {
        let text = |text: &str| text.to_owned();
        Caller::of(Claims {
            sub: text("x"),
            aud: text("fra"),
            exp: String::new(),
            iat: String::new(),
            role,
            tenant: tenant.map(text),
            node: node.map(text),
        })
    }

    #[test]
    fn a_tenant_sees_its_own_and_cannot_tell_the_rest_from_nothing() {
        let acme = caller(Role::Tenant, Some("acme"), None).unwrap();
        let own = ServerName::parse("name", "acme/x").unwrap();
        let other = ServerName::parse("name", "core/x").unwrap();
        assert!(acme.sees(&own).is_ok());
        assert_eq!(acme.sees(&other).unwrap_err(), servers::no_such(&other));
        assert_eq!(acme.lists(None).unwrap().as_deref(), Some("acme"));
        assert!(acme.lists(Some("core")).is_err());
        assert!(acme.operates().is_err() && acme.serves().is_err() && acme.is_node("n").is_err());
    }

    #[test]
    fn a_token_without_its_whose_is_nobody() {
        assert!(caller(Role::Tenant, None, None).is_none());
        assert!(caller(Role::Tenant, Some("*"), None).is_none());
        assert!(caller(Role::Node, None, None).is_none());
        let node = caller(Role::Node, None, Some("fra-1")).unwrap();
        assert!(node.is_node("fra-1").is_ok() && node.is_node("fra-2").is_err() && node.manages().is_err());
    }
}
