"""Stop words: how people ask in a text to get no more messages, in twelve languages.

All words are in the form that `bridge.policy.stop_requests` reduces a text to: lowercase, without accents, apostrophes
and punctuation (`désabonner` -> `desabonner`, `løbende` -> `lobende`, `don't` -> `dont`).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final


def _words(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


STOP_ANYHOW: Final = _words(
    # English; `stop` is in use in all of these languages
    "stop stopall stopit stopstop unsubscribe unsubcribe unsuscribe unsubscibe unsub optout revoke",
    "arretez desabonner desabonnement desabonnez desinscrire desinscription desinscrivez",  # French
    "desuscribir desuscribirme desuscribeme desuscribirse",  # Spanish
    "abmelden abmeldung austragen",  # German
    "descadastrar descadastre descadastrem desinscrever desinscreva",  # Portuguese
    "disiscrivi disiscrivimi disiscrivetemi disiscrivermi disiscrizione",  # Italian
    "afmelden uitschrijven",  # Dutch
    "avregistrera avanmal avprenumerera",  # Swedish
    "afmeld frameld",  # Danish
    "avmeld",  # Norwegian
    "lopettakaa",  # Finnish
    "wypisz wypiszcie wypisac przestan przestancie",  # Polish
)
"""Words that hardly any other sentence begins with: a text that begins with one is an opt-out, whatever follows.

`stop` has exceptions: `OTHER_STOPS`."""

STOP_ALONE: Final = STOP_ANYHOW | _words(
    "end quit cancel cease exit remove stpo sotp stop2end",
    "arret arrete arreter annuler resilier supprimer fin",
    "alto baja parar para pare paren basta cancelar cancela salir detener terminar anular eliminar",
    "ende schluss beenden abbestellen aufhoren aufhoeren widerruf widerrufen loschen loeschen",
    "sair parem remover cancele",
    "ferma fermare fermati fermatevi cancella cancellare cancellami cancellatemi annulla rimuovi rimuovimi",
    "stoppen stopzetten einde beeindigen opzeggen annuleren annuleer",
    "sluta stoppa avsluta avbryt avbestall",
    "stands afslut annuller afbestil",
    "stans slutt avslutt avbestill",
    "lopeta peruuta peruuttakaa poista loppu",
    "koniec anuluj rezygnuje rezygnacja zakoncz usun dosc",
)
"""Words that also begin other sentences (`cancel my appointment`): an opt-out alone, with a courtesy or a signature."""

OPT_IN: Final = _words(
    "start unstop optin subscribe resubscribe",
    "demarrer alta iniciar anmelden avvia aanmelden starta tilmeld aloita wznow",
)
"""Words that undo an opt-out, if the text has no other word."""

BEFORE: Final = _words(
    "please pls plz kindly thanks thank thx ty ok okay hi hello hey sorry just and so sir madam maam",
    "merci svp stp bonjour por favor gracias hola bitte danke hallo obrigado obrigada ola grazie ciao",
    "aub alstublieft alsjeblieft dank bedankt tack snalla hej tak venligst takk vennligst hei kiitos",
    "prosze dziekuje dzieki",
)
"""Greetings and courtesies that may stand before a stop word."""

AFTER: Final = BEFORE | _words(
    "you now immediately asap already all everything forever right away",
    "sil vous te plait tout de suite maintenant ya ahora todo sofort jetzt alles agora tudo per favore subito ora",
    "adesso tutto sie u je wel nu direct maar na nyt heti teraz natychmiast juz",
)
"""Words that may stand after a stop word and leave it what it is. `cancel it` is about something else."""

ASKED: Final = re.compile(
    r"(?:(?:can|could|would|will) (?:you|u|ya)|you (?:need to|must|should|have to)"
    r"|i (?:want|need|would like) you to"
    r"|i (?:already )?(?:asked|told) you(?: to)?|i said|text|sms|reply|send) (?:please |just |kindly )*(?=stop\b)"
)
"""How a sentence asks to stop, before the word `stop`."""

OTHER_STOPS: Final = re.compile(
    r"stop (?:by|in|at|over|off|around|round|sign|signs|light|lights|watch|motion|payments?|shop|n shop|and shop"
    r"|or|near|on|for|with|worrying"
    r"|(?:the|my|our|your) (?:\w+ )?(?:order|delivery|shipment|payment|car|bus|booking|appointment|work|repair|machine"
    r"|clock|train))\b"
)
"""Sentences that begin with `stop` and ask for something else."""

LIMITED: Final = re.compile(
    r"\b(?:tomorrow|today|tonight|before|until|till|til|after|morning|afternoon|evening|night|weekends?|while|between"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|during|at \d+|\d+ ?(?:am|pm)|at work|yet|later|right now"
    r"|manana|hoy|antes|hasta|despues|todavia|aun|mas tarde|demain|aujourdhui|avant|jusqu\w*|apres|encore|plus tard"
    r"|morgen|heute|vor|bis|nach|erst|um|noch|spater|spaeter|amanha|hoje|ate|depois|ainda|mais tarde"
    r"|domani|oggi|prima|fino|dopo|ancora|piu tardi|vandaag|voor|tot|nog|imorgon|idag|fore|innan|imorgen|i morgon"
    r"|i morgen|i dag|huomenna|tanaan|ennen|viela|jutro|dzis|dzisiaj|przed|jeszcze|for \d+|for kl|po \d+|do \d+)\b"
)
"""A sentence that says when not to write (`don't call me before 5`) is not an opt-out."""

FOR_GOOD: Final = re.compile(
    r"\b(?:again|anymore|any more|ever|no more|no longer|mas(?! tarde)|plus(?! tard)|mehr|wieder|mais(?! tarde)"
    r"|piu(?! tardi)|meer|mer|mere|langre|lenger|enaa|wiecej)\b"
)
"""Words that make a sentence an opt-out although it names a time."""

WANTS_TEXTS: Final = re.compile(
    r"(?:^|\b(?:please|just|only|rather|instead|but|can you|could you|you can) )(?:text|txt|sms|message|msg|whatsapp) "
    r"(?:me|us)\b|\b(?:text|txt|sms|message|msg|whatsapp) (?:me |us )?instead\b"
)
"""A request for texts instead of calls: `don't call me, text me`."""

# Below, one pattern a line; an indented line continues the one before. The words in capitals stand for `_PARTS`.

_PARTS: Final = {
    "TEXTS": r"""
        (?:texts?|txts?|messages?|msgs?|sms|smses|texting|texted|messaging|messaged|notifications|reminders
        |alerts|spam|marketing|ads|promos|promotions)
    """,
    "CONTACTS": r"""
        (?:TEXTS|calls|calling|called|contacting|contacted|emails|emailed)
    """,
    "WRITE": r"""
        (?:text|txt|message|msg|contact|call|sms|email|mail|bother|spam|harass|whatsapp|reach out to)(?:ing)?
    """,
    "NUMBER": r"""
        my (?:\w+ )?(?:number|no|name|phone|cell|info|information|details|data)
    """,
    "NOT": r"""
        (?:(?<!you )(?<!they )(?:do not|dont)|(?:^|please |and |just |to )never|no longer|not to|cease)
    """,
    "NOT_ASKED": r"""
        (?<!did you )(?<!do you )(?<!dont )(?<!not )(?<!never )
    """,
}

_ENGLISH: Final = r"""
\bNOT(?: ever| please)? WRITE(?: (?:or|and|nor) WRITE)? (?:me|us|this number|this phone|my (?:phone|number|cell)
    |here|again|anymore|any more)\b
\bNOT(?: ever| please)? (?:send|write)(?: to)?(?: me| us)?(?: any| these| those| your| such| more| further
    | anymore)* (?:CONTACTS|anything|stuff|again|anymore)\b
NOT_ASKED\b(?:stop|quit|cease)(?: all| with)?(?: the| these| your)? (?:texting|txting|messaging|msging|contacting
    |calling|spamming|bothering|emailing|harassing|writing)\b
NOT_ASKED\b(?:stop|quit|cease) sending(?: me| us)?(?: any| these| those| this| your| such| the| all| so| many)*
    (?:[ ]CONTACTS| stuff| shit| crap| these| this| those)\b
^(?:please )?NOT (?:WRITE (?:or|and|nor) )?(?:WRITE|reach out(?: to me)?)(?: again| please)*$
(?:^|(?<!dont )(?<!not )(?:want|like|need|wish) to |how (?:do|can) i |please )stop (?:receiving|getting)
    (?: \w+){0,4} CONTACTS\b
NOT_ASKED\bstop (?:all |these |those |the |your |sending )+(?:\w+ )?CONTACTS\b
^(?:please |pls |just )*(?:cancel|end|quit|remove) (?:all |these |those |the |your |my |further )*(?:\w+ )?TEXTS
    (?: please| now| thanks)*$
(?<!got )(?<!get )(?<!getting )(?<!received )(?<!have )(?<!had )(?<!are )(?<!were )(?<!is )(?<!see )
    (?<!there )\bno more (?:of (?:these|this|your)|(?:\w+ )?CONTACTS)\b
\b(?:(?<!you )(?<!they )(?:do not|dont)|no longer) (?:want|wish|need|like)(?: to)?
    (?: (?!stop|miss|lose)\w+){0,5} CONTACTS\b
\b(?:remove|delete|take|get|scratch|drop|strike) (?:me|us|NUMBER|this number)(?: off| from| out)?(?: of)?
    (?: your| the| this| ur| all| any| these| that)?(?: (?!wait|guest|to )\w+)? (?:lists?|database|system|texts?
    |messages?|contacts?|calls?|records|campaign|spam)\b
\b(?:remove|delete|lose|erase|forget) (?:NUMBER|this number)\b
(?:^|wrong (?:number|person) )(?:please |pls |kindly |just )*(?:remove|take|block) (?:me|us|me off|us off|NUMBER off)
    (?: please| pls| now| thanks| asap)*$
^(?:please )?no more(?: please| thanks| thank you)*$
(?<!stop to )(?<!did not )(?<!didnt )(?<!do not )(?<!dont )(?<!dont want to )(?<!not want to )(?<!not )(?<!never )\b
    (?:un ?subscribe|opt ?out|opt (?:me|us) out|opting out)\b
\b(?:revoke|withdraw|rescind)(?: \w+){0,2} (?:consent|permission)\b
\bleave (?:me|us) (?:the \w+ )?alone\b
\b(?:do not|dont|no longer) (?:\w+ )?consent\b
\bcease (?:and desist|all|any|further|contact|communication)\b
\bdo not disturb\b
\b(?:f|fuck|piss) off\b
\b(?:wrong number|not interested|no thanks|enough|quit it) (?:so |and )?(?:please )?stop\b
\b(?:wrong number|(?:not|no longer) interested|who (?:is this|dis)) (?:so |and )?(?:please )?remove(?: please| thanks)*$
\b(?:and|but) (?:you|u)(?: guys| people)?(?: are)? still (?:text|call|messag)\w* (?:me|us)\b
"""

_FRENCH: Final = r"""
\bne (?:me |m|nous |mon \w+ )?(?:\w+ )?(?:contactez|contacte|contacter|ecrivez|ecris|ecrire|envoyez|envoie|envoyer
    |appelez|appelle|appeler|derangez|deranger|textez|texter)(?: plus| pas| jamais)\b
\bne plus (?:me |m|nous )?(?:contacter|ecrire|envoyer|appeler|deranger|texter)\b
\b(?:veux|souhaite|desire)(?: plus| pas)(?: recevoir| etre)?(?: de| vos| des| aucun)* (?:messages?|sms|textos?
    |appels?|pub|contactee?)\b
(?<!ai )(?<!a )(?<!avons )(?<!recois )\bplus (?:de|aucun) (?:messages?|sms|textos?|appels?)(?: svp| merci)?$
\b(?:arretez|arrete|arreter|cessez) (?:de |d)(?:me |m|nous )?(?:envoyer|ecrire|appeler|contacter|texter|deranger
    |harceler|spammer)
\b(?:retirez|supprimez|enlevez|effacez|desinscrivez|desabonnez) (?:moi|mon (?:numero|nom)|mes (?:coordonnees
    |donnees))
\bme (?:desabonner|desinscrire|retirer de)\b
\blaissez moi tranquille\b
"""

_SPANISH: Final = r"""
\bno me (?:escriba|escriban|escribas|contacte|contacten|contactes|llame|llamen|llames|moleste|molesten|molestes
    |vuelvan? a \w+)\b
\bno me (?:mand|envi)\w+(?: por favor)?(?: mas\b| mensajes?| sms| textos?| nada|$)
\bno (?:quiero|deseo)(?: que me| seguir)?(?: recibir| recibiendo)?(?: mas| sus)? (?:mensajes?|sms|textos?
    |llamadas?|escriban?|llamen?|contacten?)\b
^(?:por favor )?no (?:enviar|mandar|escribir|llamar)(?: nada| mensajes| sms)? mas\b
\bno (?:envien?|manden?|mas) (?:mas )?(?:mensajes?|sms|textos?|llamadas?)\b
\b(?:deje|dejen|deja|paren?|para) de (?:enviar|mandar|escribir|llamar|molestar|contactar)
\b(?:dar(?:me)?|dame|deme|denme|darse|dese) de baja\b
^(?:quiero )?baja(?: de| del)?(?: la| esta| su)? (?:lista|servicio|mensajes|sms|suscripcion)\b
\b(?:borre|borren|borra|elimine|eliminen|elimina|quite|quiten|quita|saque|saquen|saca)(?:me)? (?:de (?:su|la|tu
    |esta) (?:lista(?! de espera)|base)|mi (?:numero|telefono))\b
\bdej(?:en|e|a)me en paz\b
\bno molestar\b
"""

_GERMAN: Final = r"""
\bnicht (?:mehr|wieder|weiter) (?:anschreiben|schreiben|kontaktieren|anrufen|belastigen|belaestigen|texten|
    (?:angeschrieben|kontaktiert|angerufen) werden)\b
\b(?:schreib|schreibt|schreiben|ruf|rufen|ruft|kontaktier|kontaktieren)(?: sie)? (?:mir|mich)(?: bitte)? (?:nicht
    |nie)\b
\b(?:send\w*|schick\w*|schreib\w*)(?: sie)?(?: mir)?(?: bitte)? (?:nichts mehr|keine (?:weiteren? |mehr )?
    (?:nachrichten|sms|texte|werbung|mitteilungen))\b
^(?:bitte )?keine (?:weiteren? |mehr )?(?:nachrichten|sms|texte|anrufe|werbung|mitteilungen)(?: mehr| bitte| danke
    | schicken| senden)*$
\b(?:will|mochte|moechte|wunsche|wuensche)(?: \w+){0,2} keine (?:weiteren |mehr )?(?:nachrichten|sms|texte|anrufe
    |werbung|mitteilungen)\b
\bhor\w*(?: sie)?(?: bitte)?(?: endlich)? auf\b
\b(?:meld|melde|melden|trag|tragen)(?: sie)?(?: bitte)? mich(?: bitte)?(?: (?:hier|davon|sofort|jetzt))? (?:ab|aus)\b
^(?:bitte )?(?:mich )?(?:aus|von) (?:\w+ )?(?:liste|verteiler) (?:nehmen|loschen|loeschen|streichen|entfernen)\b
^(?:bitte )?(?:nie (?:mehr|wieder)) (?:schreiben|anschreiben|texten|kontaktieren|anrufen)\b
\b(?:losch\w*|loesch\w*)(?: sie)?(?: bitte)? (?:mich|meine (?:nummer|daten|telefonnummer|handynummer
    |kontaktdaten))\b
\b(?:nehm\w*|nimm|streich\w*|entfern\w*)(?: sie)?(?: bitte)? (?:mich|meine \w+)(?: bitte)? (?:aus|von)
    (?: \w+)? (?:liste|verteiler)\b
\b(?:mochte|moechte|will|wollte|bitte)(?: mich)?(?: bitte| hier| davon)* (?:abmelden|austragen)\b
\blass\w*(?: sie)?(?: mich| uns)(?: bitte)? in ruhe\b
"""

_PORTUGUESE: Final = r"""
^nao quero mais$
\bnao me (?:escrev|contact|contat|lig|perturb|incomod)\w+\b
\bnao(?: me)? (?:mand|envi)\w+(?: me)?(?: por favor)?(?: mais\b| mensage\w+| sms| nada|$)
\bpar(?:e|em|a) de (?:me )?(?:mandar|enviar|escrever|ligar|contatar|contactar|incomodar|perturbar)
\bnao (?:quero|desejo)(?: mais)?(?: receber)?(?: mais)? (?:mensage\w+|sms|ligacoes|chamadas|contato)\b
\b(?:remov|retir|exclu|apagu|tir)(?:a|am|e|em)(?: me)? (?:d[ae] (?:sua |tua )?lista|meu (?:numero|contato|nome))\b
\b(?:chega de|sem mais) (?:mensagens|sms|ligacoes)\b
\bme deix(?:e|em|a) em paz\b
"""

_ITALIAN: Final = r"""
\bnon mi (?:scriv|contatt|chiam|disturb)\w+\b
\bnon (?:scriv|contatt|chiam|disturb)\w+mi\b
\bnon (?:mi )?(?:mand|invi)\w+(?: piu\b| altri| messaggi\w*| sms| niente|$)
\b(?:niente|nessun) piu (?:altri )?messagg\w+
\b(?:smettete|smettetela|smetta|smetti|smettila) di \w+
\bbasta (?:con )?(?:i |questi )?(?:messaggi|sms|chiamate|pubblicita)\b
\bnon (?:voglio|desidero)(?: piu)?(?: ricevere)?(?: piu| altri| vostri)* (?:messaggi|sms|chiamate
    |essere contattat\w|essere disturbat\w)\b
\b(?:cancellatemi|rimuovetemi|toglietemi|cancellami|rimuovimi|toglimi|mi tolga|mi cancelli)
    (?: dall\w+| da questa| da ogni) lista\b
\b(?:cancell|rimuov|elimin)\w+ il mio numero\b
\b(?:lasciatemi|lasciami) in pace\b
"""

_DUTCH: Final = r"""
\b(?:stuur|stuurt|app|bel|belt|sms|contacteer|benader|schrijf)(?: u)? (?:mij|me)(?: \w+)? (?:niet|geen|nooit)
    (?: \w+){0,2}? ?meer\b
\b(?:app|bel|sms|contacteer|benader)(?: u)? (?:mij|me) (?:aub |alstublieft |alsjeblieft )?(?:niet|nooit)\b
^(?:aub |alstublieft |alsjeblieft )?(?:stuur|bel|app|schrijf) niet meer\b
\bgeen (?:sms|sms jes|smsjes|berichten|berichtjes|appjes|telefoontjes|reclame)(?: \w+)? meer\b
\bniet meer (?:sms\w*|sturen|bellen|benaderen|benaderd|contacteren|berichten|appen|gebeld)\b
\b(?:haal|haalt|verwijder|verwijdert|schrap)(?: u)? (?:mij|me|mijn (?:nummer|gegevens|telefoonnummer))\b
\bwil (?:\w+ )?geen (?:sms\w*|berichten|berichtjes|telefoontjes)\b
\bhoud? op\b
\blaat (?:mij|me) met rust\b
"""

_SWEDISH: Final = r"""
\b(?:skicka|ring|smsa|kontakta|messa|skriv)(?: \w+)? (?:inte|aldrig|inga)(?: \w+){0,2} (?:mer|langre|igen|fler|sms
    |meddelanden)\b
^(?:snalla )?(?:ring|smsa|kontakta|messa) (?:inte mig|mig inte|mig aldrig)\b
\binga (?:fler|mer) (?:sms|meddelanden|samtal)\b
\bsluta (?:att )?(?:skicka|ringa|smsa|sms a|kontakta|skriva|messa)\b
\bta bort (?:mig|mitt (?:nummer|namn))\b
\bvill inte (?:langre )?(?:ha|fa|bli kontaktad)(?: \w+)?(?: sms| meddelanden| samtal|$)
\blamna mig i fred\b
"""

_DANISH_NORWEGIAN: Final = r"""
\b(?:skriv|ring|send|sms|kontakt)(?: til)?(?: mig| meg)?(?: \w+)? (?:ikke|aldrig|aldri)(?: flere| mer| mere\b)
    (?: sms| beskeder| meldinger)?\b
\b(?:skriv|ring|kontakt)(?: til)? (?:mig|meg) (?:ikke|aldrig|aldri)\b
\bikke (?:skriv|ring|kontakt|tekst)(?: til)? (?:meg|mig)\b
\bikke send(?: meg| mig)? (?:flere|sms|meldinger|beskeder)\b
\b(?:skriv|ring|send) ikke(?: flere)?(?: \w+){0,3} (?:mere|mer|beskeder|meldinger|sms)\b
\bikke flere (?:sms|beskeder|opkald|meldinger|anrop|smser)\b
\b(?:stop|stopp|slutt|hold op|stans)(?: a| med a| med at|) (?:skrive|sende|ringe|kontakte|smse)\b
\b(?:slet|fjern|slett) (?:mig|meg|mit nummer|nummeret mitt|mitt nummer)\b
\b(?:afmeld|frameld|avmeld|meld) (?:mig|meg)(?: av| fra| af)?\b
\b(?:lad mig vaere|la meg vaere)\b
"""

_FINNISH: Final = r"""
\balkaa (?:enaa )?(?:minulle |minua |minuun )?(?:lahettako|soittako|ottako|viestittako|kirjoittako|laittako
    |hairitko)\b
\bala (?:enaa )?(?:laheta|soita|ota|viesti|laita|tekstaa|kirjoita)\b
\bei enaa (?:viesteja|tekstiviesteja|soittoja|mainoksia)\b
\blopeta\w* (?:viesti\w*|soittelu|lahett\w*|naiden)
\bpoista(?:kaa)? (?:minut|numeroni|numeroa)\b
\ben halua (?:enaa )?(?:\w+ )?(?:viesteja|tekstiviesteja|soittoja|mainoksia)\b
\bjattakaa (?:minut )?rauhaan\b
"""

_POLISH: Final = r"""
\bnie (?:pisz|piszcie|pisac|wysylaj|wysylajcie|wysylac|przysylaj|przysylajcie|dzwon|dzwoncie|dzwonic|kontaktuj\w*
    |kontaktowac)(?: sie)?(?: ze mna| do mnie| mi| wiecej| juz| sms\w*| wiadomosci)
^(?:prosze )?nie (?:pisz|piszcie|pisac|wysylac|dzwon|dzwonic|dzwoncie)$
\bwiecej (?:nie )?(?:pisz|piszcie|wysylaj|wysylajcie|dzwon|dzwoncie)\b
\b(?:usun|usuncie|wykresl|wykreslcie|skasuj|skasujcie|wypisz|wypiszcie)(?: prosze)? (?:mnie|moj numer|moje dane)\b
\bprzestan(?:cie)? (?:do mnie |mi )?(?:pisac|wysylac|dzwonic|przysylac)\b
\bnie chce (?:juz |wiecej )?(?:otrzymywac|dostawac|zadnych|wiecej|sms\w*|wiadomosci|telefonow)
\b(?:koniec|dosc|zadnych)(?: wiecej| tych)? (?:sms\w*|wiadomosci)\b
\b(?:dajcie|daj) mi spokoj\b
\busuniecie (?:mojego numeru|mnie|moich danych)\b
"""

_BUTTONS: Final = r"""
^(?:arreter|stopper|bloquer) (?:les |la )?(?:promotions?|promos?|publicites?|pub)$
^(?:detener|parar|cancelar|bloquear) (?:las? )?(?:promociones|publicidad)$
^(?:werbung|werbeaktionen|werbenachrichten) (?:stoppen|beenden|abbestellen)$
^(?:interromper|parar|cancelar|bloquear) (?:as? )?(?:promocoes|publicidade)$
^(?:interrompi|interrompere|ferma|fermare|blocca) (?:le |la )?(?:promozioni|pubblicita)$
^(?:promoties|reclame) (?:stoppen|stopzetten)$
^(?:stoppa|avsluta|avbryt) (?:reklam|kampanjer|erbjudanden)$
^(?:stands|afmeld|stans|avslutt) (?:reklamer?|kampagner|kampanjer)$
^(?:lopeta|esta) (?:mainokset|mainonta|kampanjat)$
^(?:zatrzymaj|przerwij|wylacz) (?:promocje|reklamy)$
"""
"""`Stop promotions`, the label of the button with which WhatsApp's marketing templates let people opt out."""

_LANGUAGES: Final = (
    _BUTTONS,
    _ENGLISH,
    _FRENCH,
    _SPANISH,
    _GERMAN,
    _PORTUGUESE,
    _ITALIAN,
    _DUTCH,
    _SWEDISH,
    _DANISH_NORWEGIAN,
    _FINNISH,
    _POLISH,
)


@cache
def stop_phrases() -> re.Pattern[str]:
    """Return the pattern of sentences that ask for no more messages. It is compiled when the first text arrives.

    Compiling takes 50 ms, which every command would otherwise spend at its start.
    """
    patterns = re.sub(r"\n +", "", "".join(_LANGUAGES)).split("\n")
    parts = {name: re.sub(r"\n *", "", part) for name, part in _PARTS.items()}

    def expand(pattern: str) -> str:
        expanded = re.sub(r"[A-Z_]{3,}", lambda name: parts[name[0]], pattern)
        return expanded if expanded == pattern else expand(expanded)

    return re.compile("|".join(expand(pattern) for pattern in patterns if pattern))
