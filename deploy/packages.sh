#!/bin/sh
# Fetches the servers and tools that the tests use, where they are missing.
set -eu
PATH="$PATH:/usr/sbin:/usr/local/sbin"

missing=""
command -v mosquitto >/dev/null || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v snmpget >/dev/null || missing="$missing snmp"
command -v snmpd >/dev/null || missing="$missing snmpd"
command -v socat >/dev/null || missing="$missing socat"
command -v openssl >/dev/null || missing="$missing openssl"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "The tests need:$missing. Install them with this system's package manager." >&2
  exit 2
fi
root=""
[ "$(id -u)" = 0 ] || root="sudo"
# The packages would start their servers on the standard ports; the tests start their own.
$root sh -c "
  policy=/usr/sbin/policy-rc.d
  [ -e \$policy ] || { printf '#!/bin/sh\nexit 101\n' >\$policy; chmod +x \$policy; made=1; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing >/dev/null
  code=\$?
  [ -z \"\${made:-}\" ] || rm -f \$policy
  exit \$code
" || { echo "Could not install:$missing. Install them by hand and try again." >&2; exit 2; }
