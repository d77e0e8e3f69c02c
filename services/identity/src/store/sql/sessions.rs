//! The statements of [`Sessions`](crate::store::Sessions).

/// Implements it for a type with a `pool` of connections and a `guard`. `$lock` ends a SELECT whose rows
/// are to be locked, where the engine has rows to lock.
macro_rules! sql_sessions {
    ($store:ty, $lock:literal) => {
        #[async_trait::async_trait]
        impl crate::store::Sessions for $store {
            async fn open_session(&self, new: &NewSession, audit: &Audit) -> Stored<()> {
                guarded(&self.guard, "open_session", async {
                    let mut tx = self.pool.begin().await?;
                    let session = &new.session;
                    sqlx::query("INSERT INTO identity_sessions (id, account, created_at, used_at, expires_at, ip, agent) VALUES ($1, $2, $3, $4, $5, $6, $7)")
                        .bind(&session.id)
                        .bind(&session.account)
                        .bind(session.created_at.0)
                        .bind(session.used_at.0)
                        .bind(session.expires_at.0)
                        .bind(&session.ip)
                        .bind(&session.agent)
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("INSERT INTO identity_refresh_tokens (hash, session, expires_at) VALUES ($1, $2, $3)")
                        .bind(&new.token)
                        .bind(&session.id)
                        .bind(session.expires_at.0)
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("UPDATE identity_sessions SET revoked_at = $2 WHERE revoked_at IS NULL AND id IN (SELECT id FROM identity_sessions WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY created_at DESC, id DESC LIMIT 1000000 OFFSET $3)")
                        .bind(&session.account)
                        .bind(session.created_at.0)
                        .bind(i64::from(new.sessions_max))
                        .execute(&mut *tx)
                        .await?;
                    write(&mut tx, audit).await?;
                    tx.commit().await
                })
                .await
            }

            async fn rotate(
                &self,
                shown: &TokenHash,
                next: &TokenHash,
                expires_at: Timestamp,
                audit: &Audit,
            ) -> Stored<Rotation> {
                guarded(&self.guard, "rotate", async {
                    let now = audit.at;
                    let mut tx = self.pool.begin().await?;
                    let row: Option<TokenRow> = sqlx::query_as(concat!("SELECT t.session, s.account, t.expires_at, t.used_at, s.revoked_at FROM identity_refresh_tokens t JOIN identity_sessions s ON s.id = t.session WHERE t.hash = $1", $lock))
                        .bind(shown)
                        .fetch_optional(&mut *tx)
                        .await?;
                    let Some(row) = row else { return Ok(Rotation::Refused) };
                    let known = Shown {
                        used: row.used_at.is_some(),
                        expires_at: Timestamp(row.expires_at),
                        revoked: row.revoked_at.is_some(),
                    };
                    let TokenRow { session, account, .. } = row;
                    match judge(known, now) {
                        Verdict::Expired | Verdict::Revoked => return Ok(Rotation::Refused),
                        Verdict::Reused => {
                            sqlx::query("UPDATE identity_sessions SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL")
                                .bind(&session)
                                .bind(now.0)
                                .execute(&mut *tx)
                                .await?;
                            write(&mut tx, &filled(audit, &account, Some(&session))).await?;
                            tx.commit().await?;
                            return Ok(Rotation::Reused { account, session });
                        }
                        Verdict::Rotate => {}
                    }
                    sqlx::query("UPDATE identity_refresh_tokens SET used_at = $2 WHERE hash = $1")
                        .bind(shown)
                        .bind(now.0)
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("INSERT INTO identity_refresh_tokens (hash, session, expires_at) VALUES ($1, $2, $3)")
                        .bind(next)
                        .bind(&session)
                        .bind(expires_at.0)
                        .execute(&mut *tx)
                        .await?;
                    sqlx::query("UPDATE identity_sessions SET used_at = $2, expires_at = $3, ip = $4 WHERE id = $1")
                        .bind(&session)
                        .bind(now.0)
                        .bind(expires_at.0)
                        .bind(&audit.ip)
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await?;
                    Ok(Rotation::Done { account, session })
                })
                .await
            }

            async fn sessions(&self, account: &str, now: Timestamp) -> Stored<Vec<Session>> {
                guarded(&self.guard, "sessions", async {
                    let rows: Vec<SessionRow> = sqlx::query_as("SELECT id, account, created_at, used_at, expires_at, ip, agent FROM identity_sessions WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY created_at DESC, id DESC")
                        .bind(account)
                        .bind(now.0)
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(rows.into_iter().map(Session::from).collect())
                })
                .await
            }

            async fn revoke_session(
                &self,
                account: &str,
                session: &str,
                audit: &Audit,
            ) -> Stored<bool> {
                guarded(&self.guard, "revoke_session", async {
                    let mut tx = self.pool.begin().await?;
                    let ended = sqlx::query("UPDATE identity_sessions SET revoked_at = $3 WHERE id = $2 AND account = $1 AND revoked_at IS NULL AND expires_at > $3")
                        .bind(account)
                        .bind(session)
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    if ended.rows_affected() == 0 {
                        return Ok(false);
                    }
                    write(&mut tx, &filled(audit, account, Some(session))).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn revoke_by_token(
                &self,
                token: &TokenHash,
                audit: &Audit,
            ) -> Stored<Option<String>> {
                guarded(&self.guard, "revoke_by_token", async {
                    let mut tx = self.pool.begin().await?;
                    let ended: Option<(String, String)> = sqlx::query_as("UPDATE identity_sessions SET revoked_at = $2 WHERE revoked_at IS NULL AND id = (SELECT session FROM identity_refresh_tokens WHERE hash = $1) RETURNING id, account")
                        .bind(token)
                        .bind(audit.at.0)
                        .fetch_optional(&mut *tx)
                        .await?;
                    let Some((session, account)) = ended else { return Ok(None) };
                    write(&mut tx, &filled(audit, &account, Some(&session))).await?;
                    tx.commit().await?;
                    Ok(Some(session))
                })
                .await
            }
        }
    };
}

pub(in crate::store) use sql_sessions;
