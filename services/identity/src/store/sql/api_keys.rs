//! The statements of [`ApiKeys`](crate::store::ApiKeys).

/// Implements it for a type with a `pool` of connections and a `guard`.
macro_rules! sql_api_keys {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl crate::store::ApiKeys for $store {
            async fn add_api_key(
                &self,
                key: &ApiKey,
                hash: &TokenHash,
                keys_max: u32,
                audit: &Audit,
            ) -> Stored<bool> {
                guarded(&self.guard, "add_api_key", async {
                    let mut tx = self.pool.begin().await?;
                    // The account's row is the lock: of two that are made at once one is counted first.
                    sqlx::query("UPDATE identity_accounts SET role = role WHERE id = $1")
                        .bind(&key.account)
                        .execute(&mut *tx)
                        .await?;
                    let open: i64 = sqlx::query_scalar("SELECT count(*) FROM identity_api_keys WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2")
                        .bind(&key.account)
                        .bind(key.created_at.0)
                        .fetch_one(&mut *tx)
                        .await?;
                    if open >= i64::from(keys_max) {
                        return Ok(false);
                    }
                    sqlx::query("INSERT INTO identity_api_keys (id, account, label, hash, publish, subscribe, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
                        .bind(&key.id)
                        .bind(&key.account)
                        .bind(&key.label)
                        .bind(hash)
                        .bind(patterns_text(&key.publish))
                        .bind(patterns_text(&key.subscribe))
                        .bind(key.created_at.0)
                        .bind(key.expires_at.0)
                        .execute(&mut *tx)
                        .await?;
                    write(&mut tx, audit).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }

            async fn api_keys(&self, account: &str, now: Timestamp) -> Stored<Vec<ApiKey>> {
                guarded(&self.guard, "api_keys", async {
                    let rows: Vec<ApiKeyRow> = sqlx::query_as("SELECT id, account, label, publish, subscribe, created_at, expires_at, used_at FROM identity_api_keys WHERE account = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY created_at DESC, id DESC")
                        .bind(account)
                        .bind(now.0)
                        .fetch_all(&mut *self.pool.acquire().await?)
                        .await?;
                    rows.into_iter().map(ApiKey::try_from).collect()
                })
                .await
            }

            async fn use_api_key(
                &self,
                hash: &TokenHash,
                now: Timestamp,
            ) -> Stored<Option<ApiKey>> {
                guarded(&self.guard, "use_api_key", async {
                    let row: Option<ApiKeyRow> = sqlx::query_as("UPDATE identity_api_keys SET used_at = $2 WHERE hash = $1 AND revoked_at IS NULL AND expires_at > $2 RETURNING id, account, label, publish, subscribe, created_at, expires_at, used_at")
                        .bind(hash)
                        .bind(now.0)
                        .fetch_optional(&mut *self.pool.acquire().await?)
                        .await?;
                    row.map(ApiKey::try_from).transpose()
                })
                .await
            }

            async fn revoke_api_key(
                &self,
                account: &str,
                key: &str,
                audit: &Audit,
            ) -> Stored<bool> {
                guarded(&self.guard, "revoke_api_key", async {
                    let mut tx = self.pool.begin().await?;
                    let ended = sqlx::query("UPDATE identity_api_keys SET revoked_at = $3 WHERE id = $2 AND account = $1 AND revoked_at IS NULL AND expires_at > $3")
                        .bind(account)
                        .bind(key)
                        .bind(audit.at.0)
                        .execute(&mut *tx)
                        .await?;
                    if ended.rows_affected() == 0 {
                        return Ok(false);
                    }
                    write(&mut tx, &filled(audit, account, Some(key))).await?;
                    tx.commit().await?;
                    Ok(true)
                })
                .await
            }
        }
    };
}

pub(in crate::store) use sql_api_keys;
