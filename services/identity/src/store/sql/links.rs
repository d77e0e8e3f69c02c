//! The statements of [`Links`](crate::store::Links).

/// Implements it for a type with a `pool` of connections and a `guard`.
macro_rules! sql_links {
    ($store:ty, $db:ty) => {
        #[async_trait::async_trait]
        impl crate::store::Links for $store {
            async fn linked(&self, authority: &str, subject: &str) -> Stored<Option<Account>> {
                guarded(&self.guard, "linked", async {
                    let row: Option<AccountRow> = sqlx::query_as("SELECT a.id, a.name, a.email, a.email_key, a.email_verified_at, a.password, a.role, a.blocked_at, a.changed_at FROM identity_links l JOIN identity_accounts a ON a.id = l.account WHERE l.authority = $1 AND l.subject = $2")
                        .bind(authority)
                        .bind(subject)
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(row.map(Account::from))
                })
                .await
            }

            async fn add_link(&self, link: &Link, links_max: u32, audit: &Audit) -> Stored<Linked> {
                guarded(&self.guard, "add_link", async {
                    let mut tx = self.pool.begin().await?;
                    // The account's row is the lock: of two that are added at once one is counted first.
                    sqlx::query("UPDATE identity_accounts SET role = role WHERE id = $1")
                        .bind(&link.account)
                        .execute(&mut *tx)
                        .await?;
                    let added = insert_link(&mut tx, link).await?;
                    if added == 0 {
                        let owner: Option<String> = sqlx::query_scalar("SELECT account FROM identity_links WHERE authority = $1 AND subject = $2")
                            .bind(&link.authority)
                            .bind(&link.subject)
                            .fetch_optional(&mut *tx)
                            .await?;
                        let own = owner.as_deref() == Some(link.account.as_str());
                        return Ok(if own { Linked::Done } else { Linked::Taken });
                    }
                    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM identity_links WHERE account = $1")
                        .bind(&link.account)
                        .fetch_one(&mut *tx)
                        .await?;
                    if count > i64::from(links_max) {
                        return Ok(Linked::TooMany);
                    }
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(Linked::Done)
                })
                .await
            }

            async fn links(&self, account: &str) -> Stored<Vec<Link>> {
                guarded(&self.guard, "links", async {
                    let rows: Vec<LinkRow> = sqlx::query_as("SELECT id, authority, subject, account, provider, created_at FROM identity_links WHERE account = $1 ORDER BY created_at DESC, id DESC")
                        .bind(account)
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(rows.into_iter().map(Link::from).collect())
                })
                .await
            }

            async fn remove_link(&self, account: &str, link: &str, audit: &Audit) -> Stored<Unlinked> {
                guarded(&self.guard, "remove_link", async {
                    let mut tx = self.pool.begin().await?;
                    sqlx::query("UPDATE identity_accounts SET role = role WHERE id = $1")
                        .bind(account)
                        .execute(&mut *tx)
                        .await?;
                    let removed = sqlx::query("DELETE FROM identity_links WHERE id = $1 AND account = $2")
                        .bind(link)
                        .bind(account)
                        .execute(&mut *tx)
                        .await?;
                    if removed.rows_affected() == 0 {
                        return Ok(Unlinked::Nothing);
                    }
                    let ways_in: i64 = sqlx::query_scalar("SELECT (SELECT count(*) FROM identity_links WHERE account = $1) + (SELECT count(*) FROM identity_accounts WHERE id = $1 AND password <> $2)")
                        .bind(account)
                        .bind(NO_PASSWORD)
                        .fetch_one(&mut *tx)
                        .await?;
                    if ways_in == 0 {
                        return Ok(Unlinked::Last);
                    }
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(Unlinked::Done)
                })
                .await
            }

            async fn put_proof(
                &self,
                ticket: &TokenHash,
                proof: &SealedText,
                expires_at: Timestamp,
            ) -> Stored<()> {
                guarded(&self.guard, "put_proof", async {
                    sqlx::query("INSERT INTO identity_proofs (hash, sealed, sealed_key, expires_at) VALUES ($1, $2, $3, $4)")
                        .bind(ticket)
                        .bind(&proof.bytes)
                        .bind(&proof.key)
                        .bind(expires_at.0)
                        .execute(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(())
                })
                .await
            }

            async fn take_proof(
                &self,
                ticket: &TokenHash,
                now: Timestamp,
            ) -> Stored<Option<SealedText>> {
                guarded(&self.guard, "take_proof", async {
                    let taken: Option<(Vec<u8>, String, i64)> = sqlx::query_as("DELETE FROM identity_proofs WHERE hash = $1 RETURNING sealed, sealed_key, expires_at")
                        .bind(ticket)
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    let good = taken.filter(|(_, _, end)| now.0 < *end);
                    Ok(good.map(|(bytes, key, _)| SealedText { key, bytes }))
                })
                .await
            }
        }

        /// Adds a link unless its subject has one; how many were added.
        async fn insert_link(
            connection: &mut <$db as sqlx::Database>::Connection,
            link: &Link,
        ) -> Result<u64, sqlx::Error> {
            let added = sqlx::query("INSERT INTO identity_links (id, authority, subject, account, provider, created_at) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (authority, subject) DO NOTHING")
                .bind(&link.id)
                .bind(&link.authority)
                .bind(&link.subject)
                .bind(&link.account)
                .bind(&link.provider)
                .bind(link.created_at.0)
                .execute(connection)
                .await?;
            Ok(added.rows_affected())
        }
    };
}

pub(in crate::store) use sql_links;
