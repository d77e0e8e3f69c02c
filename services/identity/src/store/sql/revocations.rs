//! The statements of [`Revocations`](crate::store::Revocations). The list itself is written by triggers.

/// Implements it for a type with a `pool` of connections and a `guard`.
macro_rules! sql_revocations {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl crate::store::Revocations for $store {
            async fn set_blocked(
                &self,
                account: &str,
                blocked: bool,
                audit: &Audit,
            ) -> Stored<bool> {
                guarded(&self.guard, "set_blocked", async {
                    let mut tx = self.pool.begin().await?;
                    let set = sqlx::query("UPDATE identity_accounts SET blocked_at = $2, changed_at = $3 WHERE id = $1")
                        .bind(account)
                        .bind(blocked.then_some(audit.at.0))
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    if set.rows_affected() == 0 {
                        return Ok(false);
                    }
                    if blocked {
                        sqlx::query("UPDATE identity_sessions SET revoked_at = $2 WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2")
                            .bind(account)
                            .bind(audit.at.0)
                            .execute(&mut *tx)
                            .await?;
                    }
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn end_sessions(&self, account: &str, audit: &Audit) -> Stored<u64> {
                guarded(&self.guard, "end_sessions", async {
                    let mut tx = self.pool.begin().await?;
                    let ended = sqlx::query("UPDATE identity_sessions SET revoked_at = $2 WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2")
                        .bind(account)
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(ended.rows_affected())
                })
                .await
            }

            async fn revocations(
                &self,
                after: i64,
                since: Timestamp,
                limit: i64,
            ) -> Stored<Vec<Revoked>> {
                guarded(&self.guard, "revocations", async {
                    let rows: Vec<(i64, String, Option<String>, i64)> = sqlx::query_as("SELECT seq, account, session, at FROM identity_revocations WHERE seq > $1 AND at > $2 ORDER BY seq LIMIT $3")
                        .bind(after)
                        .bind(since.0)
                        .bind(limit)
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    let revoked = |(seq, account, session, at)| Revoked {
                        seq,
                        account,
                        session,
                        at: Timestamp(at),
                    };
                    Ok(rows.into_iter().map(revoked).collect())
                })
                .await
            }

            async fn newest_revocation(&self) -> Stored<i64> {
                guarded(&self.guard, "newest_revocation", async {
                    let newest: Option<i64> =
                        sqlx::query_scalar("SELECT max(seq) FROM identity_revocations")
                            .fetch_one(&mut *self.pool.acquire().await?)
                            .await?;
                    Ok(newest.unwrap_or(0))
                })
                .await
            }
        }
    };
}

pub(in crate::store) use sql_revocations;
