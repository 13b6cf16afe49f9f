#!/bin/sh
# Makes a MariaDB server one of Coldchain's two primaries. Run it on each of the two servers, with the other as --other-host;
# running it again does no harm and mends what is missing. docs/two-primaries.md has the whole way.
set -eu

usage() {
  cat >&2 <<'END'
two-primaries.sh --number 1|2 --other-host HOST --replication-password-file FILE --password-file FILE [options]

  --number N                       this server's number: 1 on one of the two, 2 on the other
  --other-host HOST                where this server reaches the other one
  --other-port PORT                (3306)
  --replication-password-file FILE the first line is the password of the servers' own user, the same on both
  --password-file FILE             the first line is the password of Coldchain's user
  --replication-user NAME          (coldchain_replication)
  --user NAME                      Coldchain's user (coldchain)
  --database NAME                  (coldchain)
  --tls-ca FILE                    reach the other server by TLS only, and believe certificates of this authority
  --socket FILE                    this server's socket (the client's default)
  --write-config FILE              only put the configuration in its place, such as
                                   /etc/mysql/mariadb.conf.d/70-coldchain.cnf; then start the server again
  --wait SECONDS                   how long to wait for the other server (10)
  --start no                       do not begin to follow it: a backup is to be restored first

It logs in as the server's root by the socket: run it as root on the server's host.
END
  exit 2
}

say() { printf '%s\n' "two-primaries.sh: $*"; }
fail() { printf '%s\n' "two-primaries.sh: $*" >&2; exit 1; }

number="" other_host="" other_port=3306 replication_file="" password_file="" replication_user=coldchain_replication
user=coldchain database=coldchain tls_ca="" socket="" write_config="" wait=10 start=yes
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case "$1" in
    --number) number=$2 ;;
    --other-host) other_host=$2 ;;
    --other-port) other_port=$2 ;;
    --replication-password-file) replication_file=$2 ;;
    --password-file) password_file=$2 ;;
    --replication-user) replication_user=$2 ;;
    --user) user=$2 ;;
    --database) database=$2 ;;
    --tls-ca) tls_ca=$2 ;;
    --socket) socket=$2 ;;
    --write-config) write_config=$2 ;;
    --wait) wait=$2 ;;
    --start) start=$2 ;;
    *) usage ;;
  esac
  shift 2
done

# Everything that comes into a statement is held to characters that mean nothing there.
case "$number" in 1 | 2) ;; *) usage ;; esac
plain() { # NAME VALUE CHARACTERS
  [ -n "$2" ] || usage
  rest=$(printf '%s' "$2" | LC_ALL=C tr -d "$3")
  [ -z "$rest" ] || fail "$1 holds characters that cannot stand there"
}

if [ -n "$write_config" ]; then
  from=$(dirname "$0")/two-primaries.cnf
  sed -E "s/^(server_id|gtid_domain_id|auto_increment_offset) = [0-9]+/\1 = $number/" "$from" >"$write_config.new"
  chmod 644 "$write_config.new"
  if cmp -s "$write_config.new" "$write_config" 2>/dev/null; then
    rm "$write_config.new"
    say "$write_config is as it should be"
  else
    [ ! -e "$write_config" ] || cp -p "$write_config" "$write_config.before"
    mv "$write_config.new" "$write_config"
    say "wrote $write_config; start the server again (systemctl restart mariadb)"
  fi
  exit 0
fi

plain --other-host "$other_host" 'A-Za-z0-9.:_-'
plain --other-port "$other_port" '0-9'
plain --wait "$wait" '0-9'
for name in "$replication_user" "$user" "$database"; do plain "a name" "$name" 'A-Za-z0-9_'; done
[ -z "$tls_ca" ] || plain --tls-ca "$tls_ca" 'A-Za-z0-9._/-'
secret() { # FILE
  [ -r "$1" ] || fail "the password file $1 is not there, or cannot be read"
  head -n 1 "$1" | tr -d '\r\n'
}
[ -n "$replication_file" ] && [ -n "$password_file" ] || usage
replication_password=$(secret "$replication_file")
password=$(secret "$password_file")
# ' and \ end or change a text in SQL; the rest may be anything that prints.
for each in "$replication_password" "$password"; do plain "a password" "$each" ' -&(-[\135-~'; done

# Statements go in by standard input: an argument would show the passwords to every user of the machine.
sql() { mariadb --no-defaults ${socket:+--socket="$socket"} --batch "$@"; }
variable() { printf 'SELECT @@GLOBAL.%s' "$1" | sql --skip-column-names; }
printf 'SELECT 1' | sql >/dev/null || fail "the server does not let this user in: run this as root on its host"

wrong=""
expect() { # VARIABLE VALUE
  found=$(variable "$1")
  [ "$found" = "$2" ] || wrong="$wrong
  $1 is $found, not $2"
}
expect server_id "$number"
expect gtid_domain_id "$number"
expect gtid_strict_mode 1
expect log_bin 1
expect log_slave_updates 1
expect binlog_format ROW
expect sync_binlog 1
expect innodb_flush_log_at_trx_commit 1
[ -z "$wrong" ] || fail "the server is not configured for this:$wrong
Run this with --write-config /etc/mysql/mariadb.conf.d/70-coldchain.cnf, start the server again, then run it once more."

require=NONE tls="MASTER_SSL = 0, MASTER_SSL_CA = ''" by=No:
if [ -n "$tls_ca" ]; then
  [ -r "$tls_ca" ] || fail "the file $tls_ca is not there, or cannot be read"
  [ "$(variable have_ssl)" = YES ] || fail "the server has no certificate: give it ssl_cert and ssl_key, start it again"
  require=SSL by=Yes:$tls_ca
  tls="MASTER_SSL = 1, MASTER_SSL_CA = '$tls_ca', MASTER_SSL_VERIFY_SERVER_CERT = 1"
fi

# Users and the empty database are each server's own: were they replicated, the two would meet them twice and stop.
sql <<END
SET SESSION sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS $database CHARACTER SET utf8mb4;
CREATE USER IF NOT EXISTS '$replication_user'@'%' IDENTIFIED BY '$replication_password';
ALTER USER '$replication_user'@'%' IDENTIFIED BY '$replication_password' REQUIRE $require;
GRANT REPLICATION SLAVE ON *.* TO '$replication_user'@'%';
CREATE USER IF NOT EXISTS '$user'@'%' IDENTIFIED BY '$password';
ALTER USER '$user'@'%' IDENTIFIED BY '$password';
GRANT ALL PRIVILEGES ON $database.* TO '$user'@'%';
GRANT REPLICA MONITOR, BINLOG MONITOR, RELOAD ON *.* TO '$user'@'%';
END
say "server $number has its users and the database $database"

status() { printf 'SHOW SLAVE STATUS\\G' | sql | sed -n "s/^ *$1: //p"; }
if [ "$(status Master_Host):$(status Master_Port):$(status Master_User):$(status Using_Gtid)" = \
     "$other_host:$other_port:$replication_user:Slave_Pos" ] &&
   [ "$(status Master_SSL_Allowed):$(status Master_SSL_CA_File)" = "$by" ] &&
   [ "$(status Slave_IO_Running)" = Yes ] && [ "$(status Slave_SQL_Running)" = Yes ]; then
  say "it follows $other_host:$other_port already"
  exit 0
fi
error=$(status Last_SQL_Errno)
if [ -n "$error" ] && [ "$error" != 0 ]; then
  fail "replication has stopped by error $error: $(status Last_SQL_Error)
Mend that first: docs/two-primaries.md says how."
fi
sql <<END
STOP SLAVE;
CHANGE MASTER TO MASTER_HOST = '$other_host', MASTER_PORT = $other_port, MASTER_USER = '$replication_user',
  MASTER_PASSWORD = '$replication_password', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 5,
  MASTER_HEARTBEAT_PERIOD = 5, $tls;
END
if [ "$start" = no ]; then
  say "it will follow $other_host:$other_port after START SLAVE"
  exit 0
fi
echo 'START SLAVE' | sql
waited=0
while [ "$(status Slave_IO_Running)" != Yes ] || [ "$(status Slave_SQL_Running)" != Yes ]; do
  if [ "$waited" -ge "$wait" ]; then
    say "it does not follow $other_host:$other_port yet: $(status Last_IO_Error)$(status Last_SQL_Error)"
    say "that is as it should be until this was run on the other server too; then: coldchain catalog status"
    exit 0
  fi
  sleep 1
  waited=$((waited + 1))
done
say "it follows $other_host:$other_port"
