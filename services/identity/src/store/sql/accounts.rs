//! The statements of [`Accounts`](crate::store::Accounts).

/// Implements it for a type with a `pool` of connections and a `guard`.
macro_rules! sql_accounts {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl crate::store::Accounts for $store {
            async fn create_account(&self, new: &NewAccount, audit: &Audit) -> Stored<Created> {
                guarded(&self.guard, "create_account", async {
                    let mut tx = self.pool.begin().await?;
                    let name = new.name.as_ref();
                    let email = new.email.as_ref();
                    let made = sqlx::query("INSERT INTO identity_accounts (id, name, name_folded, name_key, email, email_key, email_index, password, role, created_at, email_verified_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING")
                        .bind(&new.id)
                        .bind(name.map(|name| &name.0))
                        .bind(name.map(|name| &name.1))
                        .bind(name.map(|name| &name.2))
                        .bind(email.map(|email| &email.0.bytes))
                        .bind(email.map(|email| &email.0.key))
                        .bind(email.map(|email| &email.1))
                        .bind(&new.password)
                        .bind(new.role.as_str())
                        .bind(new.created_at.0)
                        .bind(new.email_verified.then_some(new.created_at.0))
                        .execute(&mut *tx)
                        .await?;
                    if made.rows_affected() == 1 {
                        if let Some(link) = &new.link
                            && insert_link(&mut tx, link).await? == 0
                        {
                            return Ok(Created::LinkTaken);
                        }
                        write(&mut tx, audit).await?;
                        tx.commit().await?;
                        return Ok(Created::Done);
                    }
                    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM identity_accounts WHERE name_key = $1 OR name_folded = $2")
                        .bind(name.map(|name| &name.2))
                        .bind(name.map(|name| &name.1))
                        .fetch_one(&mut *tx)
                        .await?;
                    Ok(if taken > 0 { Created::NameTaken } else { Created::EmailTaken })
                })
                .await
            }

            async fn account(&self, id: &str) -> Stored<Option<Account>> {
                guarded(&self.guard, "account", async {
                    let row: Option<AccountRow> = sqlx::query_as("SELECT id, name, email, email_key, email_verified_at, password, role, blocked_at, changed_at FROM identity_accounts WHERE id = $1")
                        .bind(id)
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(row.map(Account::from))
                })
                .await
            }

            async fn account_by(&self, handle: &Handle) -> Stored<Option<Account>> {
                guarded(&self.guard, "account_by", async {
                    let (name, email) = match handle {
                        Handle::Name(name) => (Some(name), None),
                        Handle::Email(index) => (None, Some(index)),
                    };
                    let row: Option<AccountRow> = sqlx::query_as("SELECT id, name, email, email_key, email_verified_at, password, role, blocked_at, changed_at FROM identity_accounts WHERE name_folded = $1 OR email_index = $2")
                        .bind(name)
                        .bind(email)
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(row.map(Account::from))
                })
                .await
            }

            async fn set_password(
                &self,
                account: &str,
                password: &str,
                keep: Option<&str>,
                audit: &Audit,
            ) -> Stored<bool> {
                guarded(&self.guard, "set_password", async {
                    let mut tx = self.pool.begin().await?;
                    let set = sqlx::query("UPDATE identity_accounts SET password = $2 WHERE id = $1")
                        .bind(account)
                        .bind(password)
                        .execute(&mut *tx)
                        .await?;
                    if set.rows_affected() == 0 {
                        return Ok(false);
                    }
                    sqlx::query("UPDATE identity_sessions SET revoked_at = $3 WHERE account = $1 AND id <> $2 AND revoked_at IS NULL")
                        .bind(account)
                        .bind(keep.unwrap_or(""))
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn upgrade_password(&self, account: &str, from: &str, to: &str) -> Stored<()> {
                guarded(&self.guard, "upgrade_password", async {
                    sqlx::query("UPDATE identity_accounts SET password = $3 WHERE id = $1 AND password = $2")
                        .bind(account)
                        .bind(from)
                        .bind(to)
                        .execute(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(())
                })
                .await
            }

            async fn verify_email(&self, account: &str, audit: &Audit) -> Stored<()> {
                guarded(&self.guard, "verify_email", async {
                    let mut tx = self.pool.begin().await?;
                    sqlx::query("UPDATE identity_accounts SET email_verified_at = $2 WHERE id = $1")
                        .bind(account)
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    write(&mut tx, audit).await?;
                    tx.commit().await
                })
                .await
            }

            async fn set_role(&self, account: &str, role: Role, audit: &Audit) -> Stored<bool> {
                guarded(&self.guard, "set_role", async {
                    let mut tx = self.pool.begin().await?;
                    let set = sqlx::query("UPDATE identity_accounts SET role = $2, changed_at = $3 WHERE id = $1")
                        .bind(account)
                        .bind(role.as_str())
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    if set.rows_affected() == 0 {
                        return Ok(false);
                    }
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn attempt(
                &self,
                counted: &[Counted],
                now: Timestamp,
            ) -> Stored<Result<(), std::time::Duration>> {
                guarded(&self.guard, "attempt", async {
                    // In the order of their keys: two who count the same never wait for each other.
                    let mut counted: Vec<_> = counted.iter().collect();
                    counted.sort_by(|one, other| one.key.cmp(&other.key));
                    let mut tx = self.pool.begin().await?;
                    for Counted { key, rule } in counted {
                        let (failures, last): (i64, i64) = sqlx::query_as("INSERT INTO identity_attempts (key, failures, last_at) VALUES ($1, 0, $2) ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING failures, last_at")
                            .bind(key)
                            .bind(now.0)
                            .fetch_one(&mut *tx)
                            .await?;
                        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
                        let before = Attempts { failures, last: Timestamp(last) };
                        let after = match rule.attempt(before, now) {
                            Ok(after) => after,
                            Err(wait) => return Ok(Err(wait)),
                        };
                        sqlx::query("UPDATE identity_attempts SET failures = $2, last_at = $3 WHERE key = $1")
                            .bind(key)
                            .bind(i64::from(after.failures))
                            .bind(after.last.0)
                            .execute(&mut *tx)
                            .await?;
                    }
                    tx.commit().await?;
                    Ok(Ok(()))
                })
                .await
            }

            async fn attempt_was_right(&self, forget: &str, lessen: &str) -> Stored<()> {
                guarded(&self.guard, "attempt_was_right", async {
                    let mut tx = self.pool.begin().await?;
                    sqlx::query("DELETE FROM identity_attempts WHERE key = $1")
                        .bind(forget)
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("UPDATE identity_attempts SET failures = failures - 1 WHERE key = $1 AND failures > 0")
                        .bind(lessen)
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await
                })
                .await
            }

            async fn put_ticket(
                &self,
                ticket: &TokenHash,
                account: &str,
                purpose: Purpose,
                expires_at: Timestamp,
            ) -> Stored<()> {
                guarded(&self.guard, "put_ticket", async {
                    let mut tx = self.pool.begin().await?;
                    sqlx::query("DELETE FROM identity_tickets WHERE account = $1 AND purpose = $2")
                        .bind(account)
                        .bind(purpose.as_str())
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("INSERT INTO identity_tickets (hash, account, purpose, expires_at) VALUES ($1, $2, $3, $4)")
                        .bind(ticket)
                        .bind(account)
                        .bind(purpose.as_str())
                        .bind(expires_at.0)
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await
                })
                .await
            }

            async fn take_ticket(
                &self,
                ticket: &TokenHash,
                purpose: Purpose,
                now: Timestamp,
            ) -> Stored<Option<String>> {
                guarded(&self.guard, "take_ticket", async {
                    let taken: Option<(String, i64)> = sqlx::query_as("DELETE FROM identity_tickets WHERE hash = $1 AND purpose = $2 RETURNING account, expires_at")
                        .bind(ticket)
                        .bind(purpose.as_str())
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(taken.filter(|(_, end)| now.0 < *end).map(|(account, _)| account))
                })
                .await
            }
        }
    };
}

pub(in crate::store) use sql_accounts;
