#!/usr/bin/env bash
# Replaces the password of one of Stormwire's database roles while everything goes on. Each role has two logins,
# a and b (deploy/postgres/roles.sql): the one that is not in use gets a password, the processes are rolled out
# with it, and the other one is shut out.
set -euo pipefail

usage() {
  cat <<'EOF'
Replaces the password of one of Stormwire's database roles without a stop.

  rotate-database-password.sh begin PURPOSE   makes a password for the login that is not in use, and prints it
  rotate-database-password.sh end LOGIN       shuts LOGIN out, once nobody is connected as it

PURPOSE is owner, gateway, messages, identity or backup. psql connects as its variables say (PGHOST, PGPORT,
PGDATABASE, PGUSER, PGPASSWORD, PGSERVICE), or is what PSQL says; the user must be a superuser, or have CREATEROLE
and have made the roles. The password is made here, and the server is told what proves it, never the password
itself.

Example:
  export PGHOST=postgres.internal PGDATABASE=stormwire PGUSER=postgres
  deploy/rotate-database-password.sh begin gateway
  # put the URL that it prints into the gateways' secret, and roll them out to their end
  deploy/rotate-database-password.sh end stormwire_gateway_a

In Kubernetes, in the pod of the primary:
  export PSQL='kubectl --namespace stormwire exec --stdin stormwire-postgres-1 --container postgres -- psql --dbname stormwire'
EOF
}

fail() {
  echo "rotate-database-password.sh: $1" >&2
  exit 1
}

# Statements and values by standard input: no list of processes shows them.
ask() {
  local psql
  read -ra psql <<<"${PSQL:-psql}"
  "${psql[@]}" --no-psqlrc --no-password --quiet --tuples-only --no-align --set ON_ERROR_STOP=1
}

# Which of the two logins of a role may sign in, as in `a` or `a b`.
open_logins() {
  ask <<EOF
SELECT coalesce(string_agg(right(rolname, 1), ' ' ORDER BY rolname), '') FROM pg_roles
WHERE rolname IN ('stormwire_$1_a', 'stormwire_$1_b') AND rolcanlogin;
EOF
}

# A password of letters and digits, which may stand in a URL, and what SCRAM keeps of it.
new_password() {
  python3 - <<'EOF'
import base64, hashlib, hmac, secrets

password, salt, rounds = secrets.token_hex(24), secrets.token_bytes(16), 4096
salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
client, server = (hmac.digest(salted, name, "sha256") for name in (b"Client Key", b"Server Key"))
stored, server, salt = (base64.b64encode(part).decode() for part in (hashlib.sha256(client).digest(), server, salt))
print(password, f"SCRAM-SHA-256${rounds}:{salt}${stored}:{server}")
EOF
}

begin() {
  local purpose=$1 open fresh password verifier
  [ "$(ask <<<"SELECT to_regrole('stormwire_${purpose}_b') IS NOT NULL")" = t ] \
    || fail "there is no role stormwire_${purpose}_b: run deploy/postgres/roles.sql in this database first"
  open=$(open_logins "$purpose")
  case $open in
    '') fresh=a ;;
    a) fresh=b ;;
    b) fresh=a ;;
    *) fail "both stormwire_${purpose}_a and stormwire_${purpose}_b may sign in: a rotation was begun and not ended; end it with the login that no process uses any more: $0 end stormwire_${purpose}_…" ;;
  esac
  read -r password verifier < <(new_password)
  ask <<EOF
\set login stormwire_${purpose}_$fresh
\set verifier '$verifier'
ALTER ROLE :"login" LOGIN PASSWORD :'verifier';
\set password $password
\echo stormwire_${purpose}_$fresh may sign in now. Put this into the secret, with the host that stands there:
\echo '  postgres://':login':':password'@':HOST':':PORT'/':DBNAME
EOF
  if [ -n "$open" ]; then
    echo "roll out whoever reads the secret, to the end, and then:"
    echo "  $0 end stormwire_${purpose}_$open"
  fi
}

end() {
  local login=$1 purpose=$2 other=b users
  [ "${login##*_}" = a ] || other=a
  case " $(open_logins "$purpose") " in
    *" $other "*) ;;
    *) fail "stormwire_${purpose}_$other may not sign in, so nobody could without $login: run $0 begin $purpose first" ;;
  esac
  users=$(
    ask <<EOF
SELECT string_agg(format('%s from %s', application_name, coalesce(host(client_addr), 'a socket')), ', ')
FROM pg_stat_activity WHERE usename = '$login';
EOF
  )
  [ -z "$users" ] || fail "$login is in use: $users; roll out whoever still has the old secret, and try again"
  ask <<EOF
ALTER ROLE $login NOLOGIN PASSWORD NULL;
EOF
  echo "$login is shut out; stormwire_${purpose}_$other is in use"
}

case "${1:-}" in
  -h | --help)
    usage
    ;;
  begin)
    case "${2:-}" in
      owner | gateway | messages | identity | backup) begin "$2" ;;
      *) fail "begin ${2:-}: expected owner, gateway, messages, identity or backup; see --help" ;;
    esac
    ;;
  end)
    if [[ ${2:-} =~ ^stormwire_(owner|gateway|messages|identity|backup)_[ab]$ ]]; then
      end "$2" "${BASH_REMATCH[1]}"
    else
      fail "end ${2:-}: expected a login, as in stormwire_gateway_a; see --help"
    fi
    ;;
  *)
    usage >&2
    exit 64
    ;;
esac
