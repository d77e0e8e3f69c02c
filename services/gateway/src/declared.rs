//! Namespaces as operators declare them: read from the database, kept in memory, read again as soon as
//! somebody has changed one.

use crate::schema::{Schema, Schemas};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use stormwire_archive::{ArchiveError, OperatorLine, Setting, Settings};
use stormwire_telemetry::{Quiet, Tasks};
use stormwire_tokens::{Access, Namespaces, Rules};
use tokio::sync::Mutex;
use utoipa::ToSchema;

/// The kind of these settings.
const KIND: &str = "namespace";
/// How often the number of the newest change is asked for: so late does a change of another process hold
/// here.
const LOOK_EVERY: Duration = Duration::from_secs(1);
static UNREAD: Quiet = Quiet::new(Duration::from_secs(10));

/// What is declared of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Declaration {
    /// What it is for, for people; at most 1000 bytes.
    pub(crate) description: String,
    /// Who may do what: `publish`, `subscribe`, `history`, `presence` and `signal`, each `granted`,
    /// `everyone`, `channel_token`, `operators` or `nobody`. What is left out is `granted`.
    #[schema(value_type = Object)]
    pub(crate) rules: Rules,
    /// A JSON Schema (2020-12, or what `$schema` says) that the data of every event published to it must
    /// follow. Formats are asserted; a `$ref` is `#/…` and leads nowhere back to itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) schema: Option<Value>,
}

/// A declared namespace.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) declaration: Declaration,
    /// The number of the audit's line that says who declared it.
    pub(crate) version: u64,
}

/// The settings with what is made of them.
#[derive(Clone)]
pub(crate) struct DeclaredNamespaces {
    settings: Arc<dyn Settings>,
    namespaces: Namespaces,
    schemas: Schemas,
    /// The newest change that was read.
    seen: Arc<Mutex<Option<u64>>>,
}

impl DeclaredNamespaces {
    /// Reads them now, in the background, and again whenever they change. Until they have been read once
    /// nothing is declared.
    pub(crate) fn start(
        settings: Arc<dyn Settings>,
        namespaces: Namespaces,
        schemas: Schemas,
        tasks: &Tasks,
    ) -> Self {
        let declared = Self { settings, namespaces, schemas, seen: Arc::default() };
        let (follower, stop) = (declared.clone(), tasks.token());
        tasks.spawn("namespaces", async move {
            stop.run_until_cancelled(follower.follow()).await;
        });
        declared
    }

    async fn follow(&self) {
        loop {
            if let Err(error) = self.refresh().await
                && let Some(suppressed) = UNREAD.ready()
            {
                tracing::warn!(%error, suppressed, "namespaces cannot be read; those read before hold");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Reads them if anything has changed.
    pub(crate) async fn refresh(&self) -> Result<(), ArchiveError> {
        let mut seen = self.seen.lock().await;
        // First the number: what comes after it is read again next time.
        let newest = self.settings.newest_line().await?;
        if *seen == Some(newest) {
            return Ok(());
        }
        let (mut rules, mut schemas) = (HashMap::new(), HashMap::new());
        for Declared { name, declaration, .. } in self.all().await? {
            let schema = declaration.schema.as_ref().map(|schema| self.compiled(&name, schema));
            let readable = schema.as_ref().is_none_or(Option::is_some);
            let publish = if readable { declaration.rules.publish } else { Access::Nobody };
            rules.insert(name.clone(), Rules { publish, ..declaration.rules });
            schemas.extend(schema.flatten().map(|schema| (name, schema)));
        }
        // Whoever may publish by the new rules is held to the new schemas.
        self.schemas.declare(schemas);
        self.namespaces.declare(rules);
        *seen = Some(newest);
        Ok(())
    }

    /// Compiles it unless that was done before. One that this program cannot compile was declared by
    /// another version: nothing can be held against it.
    fn compiled(&self, namespace: &str, schema: &Value) -> Option<Arc<Schema>> {
        let known = self.schemas.named(namespace).filter(|known| known.declared() == schema);
        known.or_else(|| match Schema::compile(schema) {
            Ok(schema) => Some(Arc::new(schema)),
            Err(refusal) => {
                if let Some(suppressed) = UNREAD.ready() {
                    tracing::error!(namespace, %refusal, suppressed, "the schema of a namespace cannot be read; nobody may publish there");
                }
                None
            }
        })
    }

    /// All of them, by name.
    pub(crate) async fn all(&self) -> Result<Vec<Declared>, ArchiveError> {
        let settings = self.settings.settings().await?;
        Ok(settings.into_iter().filter(|one| one.kind == KIND).map(declared).collect())
    }

    /// Declares one, or takes its declaration back; `false` if it is not as the operator has seen it.
    pub(crate) async fn set(
        &self,
        name: &str,
        declaration: Option<&Declaration>,
        expected: Option<u64>,
        line: &OperatorLine,
    ) -> Result<Option<u64>, ArchiveError> {
        let body = declaration.map(|one| serde_json::to_string(one).unwrap_or_default());
        let set = self.settings.set(KIND, name, body.as_deref(), expected, line).await?;
        if set.is_some() {
            self.refresh().await?;
        }
        Ok(set)
    }

    /// Writes what an operator did.
    pub(crate) async fn note(&self, line: &OperatorLine) -> Result<u64, ArchiveError> {
        self.settings.note(line).await
    }

    /// What operators did, the newest first.
    pub(crate) async fn lines(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, OperatorLine)>, ArchiveError> {
        self.settings.lines(before, limit).await
    }
}

/// One that this program cannot read was written by another version: nobody is let in by what it says.
fn declared(setting: Setting) -> Declared {
    let declaration = serde_json::from_str(&setting.body).unwrap_or_else(|error| {
        if let Some(suppressed) = UNREAD.ready() {
            tracing::error!(namespace = setting.name, %error, suppressed, "a namespace cannot be read; nobody is let in");
        }
        let rules = Rules::all(Access::Nobody);
        Declaration { description: setting.body.clone(), rules, schema: None }
    });
    Declared { name: setting.name, declaration, version: setting.version }
}
