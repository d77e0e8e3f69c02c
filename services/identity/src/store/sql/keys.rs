//! The statements of [`Keys`](crate::store::Keys).

/// Implements it for a type with a `pool` of connections and a `guard`.
macro_rules! sql_keys {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl crate::store::Keys for $store {
            async fn migrate(&self) -> Stored<()> {
                self.bring_up().await
            }

            async fn ping(&self) -> Stored<()> {
                guarded(&self.guard, "ping", async {
                    sqlx::query("SELECT count(*) FROM identity_signing_keys")
                        .execute(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(())
                })
                .await
            }

            async fn sealed_elsewhere(
                &self,
                current: &str,
                limit: i64,
            ) -> Stored<Vec<(String, SealedText)>> {
                guarded(&self.guard, "sealed_elsewhere", async {
                    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as("SELECT id, email_key, email FROM identity_accounts WHERE email_key <> $1 ORDER BY id LIMIT $2")
                        .bind(current)
                        .bind(limit)
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    let sealed = |(id, key, bytes)| (id, SealedText { key, bytes });
                    Ok(rows.into_iter().map(sealed).collect())
                })
                .await
            }

            async fn reseal(
                &self,
                account: &str,
                from: &SealedText,
                to: &SealedText,
            ) -> Stored<()> {
                guarded(&self.guard, "reseal", async {
                    sqlx::query("UPDATE identity_accounts SET email = $3, email_key = $4 WHERE id = $1 AND email = $2")
                        .bind(account)
                        .bind(&from.bytes)
                        .bind(&to.bytes)
                        .bind(&to.key)
                        .execute(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(())
                })
                .await
            }

            async fn signing_keys(&self) -> Stored<Vec<StoredKey>> {
                guarded(&self.guard, "signing_keys", async {
                    let rows: Vec<KeyRow> = sqlx::query_as("SELECT generation, id, algorithm, sealed, sealed_key, made_at, signs_from FROM identity_signing_keys ORDER BY generation")
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(rows.into_iter().map(StoredKey::from).collect())
                })
                .await
            }

            async fn add_signing_key(&self, key: &StoredKey, audit: &Audit) -> Stored<bool> {
                guarded(&self.guard, "add_signing_key", async {
                    let mut tx = self.pool.begin().await?;
                    let added = sqlx::query("INSERT INTO identity_signing_keys (generation, id, algorithm, sealed, sealed_key, made_at, signs_from) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (generation) DO NOTHING")
                        .bind(key.generation)
                        .bind(&key.id)
                        .bind(&key.algorithm)
                        .bind(&key.sealed.bytes)
                        .bind(&key.sealed.key)
                        .bind(key.dates.made_at.0)
                        .bind(key.dates.signs_from.0)
                        .execute(&mut *tx)
                        .await?;
                    if added.rows_affected() == 0 {
                        return Ok(false);
                    }
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn reseal_signing_key(&self, generation: i64, to: &SealedText) -> Stored<()> {
                guarded(&self.guard, "reseal_signing_key", async {
                    sqlx::query("UPDATE identity_signing_keys SET sealed = $2, sealed_key = $3 WHERE generation = $1")
                        .bind(generation)
                        .bind(&to.bytes)
                        .bind(&to.key)
                        .execute(&mut *self.pool.acquire().await?)
                        .await?;
                    Ok(())
                })
                .await
            }

            async fn audit(&self, audit: &Audit) -> Stored<()> {
                guarded(&self.guard, "audit", async {
                    write(&mut *self.pool.acquire().await?, audit).await
                })
                .await
            }

            async fn prune(&self, now: Timestamp, generation: i64) -> Stored<()> {
                guarded(&self.guard, "prune", async {
                    let millis = |span: std::time::Duration| {
                        i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
                    };
                    let bounds = [
                        ("DELETE FROM identity_refresh_tokens WHERE expires_at <= $1", now.0),
                        ("DELETE FROM identity_tickets WHERE expires_at <= $1", now.0),
                        ("DELETE FROM identity_proofs WHERE expires_at <= $1", now.0),
                        ("DELETE FROM identity_api_keys WHERE expires_at <= $1", now.0 - millis(SESSIONS_KEPT)),
                        ("DELETE FROM identity_attempts WHERE last_at <= $1", now.0 - millis(FORGOTTEN_AFTER)),
                        ("DELETE FROM identity_sessions WHERE expires_at <= $1", now.0 - millis(SESSIONS_KEPT)),
                        ("DELETE FROM identity_revocations WHERE at <= $1", now.0 - millis(REVOCATIONS_KEPT)),
                        ("DELETE FROM identity_signing_keys WHERE generation < $1", generation),
                    ];
                    for (statement, bound) in bounds {
                        sqlx::query(statement)
                            .bind(bound)
                            .execute(&mut *self.pool.acquire().await?)
                            .await?;
                    }
                    Ok(())
                })
                .await
            }
        }
    };
}

pub(in crate::store) use sql_keys;
